"""A tokenizer of somebody else's: a package with an entry point, used from pipelines.yaml to shards and back.

The package's code here is the example of docs/tokenize.md.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from clips import ROOT, call, run_arguments, write_image

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.tokenize.cli import cli
from toto.tokenizers import load

CODE = '''
"""grey: the mean brightness of each patch, in so many levels."""

import numpy as np


def make(spec, device="cpu"):
    return Grey(**spec.get("options", {}))


class Grey:
    batch = None  # codes do not depend on how many pictures are encoded at once

    def __init__(self, levels=16, patch=8):
        self.vocab_size, self.patch = levels, patch
        self.spec = {
            "name": "grey",
            "vocab_size": levels,
            "patch": patch,
            "options": {"levels": levels, "patch": patch},
        }

    def encode(self, pictures):
        n, _, h, w = pictures.shape
        p = self.patch
        means = pictures.reshape(n, 3, h // p, p, w // p, p).mean((1, 3, 5))
        return (means * self.vocab_size // 256).astype(np.int32)

    def decode(self, codes):
        grey = ((codes + 0.5) * 256 / self.vocab_size).astype(np.uint8)
        return np.repeat(grey.repeat(self.patch, 1).repeat(self.patch, 2)[:, None], 3, axis=1)
'''


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder as pip leaves one: the module, and a dist-info that names its entry point."""
    site = tmp_path / "site"
    info = site / "toto_grey-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "toto_grey.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toto-grey\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toto.tokenizers]\ngrey = toto_grey:make\n")
    return site


def test_the_package_here_is_the_one_of_the_docs() -> None:
    assert CODE in (ROOT / "docs" / "tokenize.md").read_text()


def test_an_installed_tokenizer_runs_by_its_name_with_its_options(site: Path, tmp_path: Path) -> None:
    for i in range(3):
        write_image(tmp_path / "pictures" / f"{i}.png", (64, 64), seed=i)
    entry = {"backend": "grey", "options": {"levels": 100, "patch": 16}}
    config = tmp_path / "more.yaml"
    config.write_text(yaml.safe_dump({"tokenizers": {"mine": entry}}))
    out = tmp_path / "out"
    arguments = ("run", "folder", "--tokenizer", "mine", "--ray-address", "local", "--out", out)
    files = ("--config", ROOT / "pipelines.yaml", "--config", config)
    settings = ("--set", f"datasets.folder.root={tmp_path / 'pictures'}", "--set", "datasets.folder.resolution=64")
    done = call("tokenize", *arguments, *files, *settings, PYTHONPATH=f"{ROOT / 'src'}:{site}")
    assert done.returncode == 0, done.stderr
    stored = json.loads((out / "dataset.json").read_text())["tokenizer"]
    assert (stored["name"], stored["vocab_size"], stored["options"]) == ("grey", 100, {"levels": 100, "patch": 16})
    assert re.fullmatch("[0-9a-f]{16}", stored["id"])
    row = Dataset(str(out)).row(0)
    assert row.codes.shape[1:] == (4, 4) and 0 <= row.codes.min() <= row.codes.max() < 100


def test_it_comes_back_from_what_dataset_json_says(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    tokenizer = load({"name": "grey", "options": {"levels": 64}})
    again = load(tokenizer.spec)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    assert (again.encode(pictures) == tokenizer.encode(pictures)).all() and again.vocab_size == 64
    assert again.decode(again.encode(pictures)).shape == pictures.shape
    with pytest.raises(UsageError, match="unknown tokenizer 'gray'; did you mean 'grey'"):
        load({"name": "gray"})


BAD = '''
"""bad: what a package may do wrong."""

import numpy as np

MODE = ""  # what is wrong now


class Bad:
    batch = None

    def __init__(self, vocab_size=16, patch=8, says=16):
        self.vocab_size, self.patch = vocab_size, patch
        self.spec = {"name": "bad", "vocab_size": says, "patch": patch, "options": {"vocab_size": says}}

    def encode(self, pictures):
        n, _, h, w = pictures.shape
        codes = np.full((n, h // 8, w // 8), self.vocab_size - 1)
        return {
            "too large": lambda: codes + 84,
            "negative": lambda: codes - 16,
            "wraps in 16 bits": lambda: codes + 65536 - 10,
            "halves": lambda: codes / 2,
            "a row short": lambda: codes[:, 1:],
            "nothing": lambda: None,
            "a list": lambda: codes.tolist(),
            "raises": lambda: pictures[0, 0, 0, 10**6],
            "later": lambda: codes + (n != 16),
            "8 bits": lambda: codes.astype(np.uint8),
        }.get(MODE, lambda: codes)()


def make(spec, device="cpu"):
    return Bad(**spec.get("options", {}))
'''


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from, with the package `bad` and a picture to tokenize."""
    folder = tmp_path_factory.mktemp("bad")
    info = folder / "toto_bad-1.0.dist-info"
    info.mkdir()
    (folder / "toto_bad.py").write_text(BAD)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toto-bad\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[toto.tokenizers]\nbad = toto_bad:make\n")
    (folder / "pictures").mkdir()
    write_image(folder / "pictures" / "0.png", (32, 32))
    return folder


@pytest.fixture
def tokenized(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`toto-tokenize run` with the package `bad` in a mode, in this process; what it says when it fails, or nothing."""
    monkeypatch.syspath_prepend(bad)

    def run(mode: str = "", options: dict[str, int] | None = None, command: str = "run") -> str:
        monkeypatch.setattr("toto_bad.MODE", mode)
        (tmp_path / "more.yaml").write_text(
            yaml.safe_dump({"tokenizers": {"mine": {"backend": "bad", "options": options or {}}}})
        )
        files = ("--config", str(ROOT / "pipelines.yaml"), "--config", str(tmp_path / "more.yaml"))
        how = ("--ray-address", "local") if command == "run" else ()
        words = [command, *run_arguments(bad / "pictures", tmp_path / "out"), "--tokenizer", "mine", *files, *how]
        done = CliRunner().invoke(cli, [word for word in words if how or word != "--quiet"], standalone_mode=False)
        assert done.exception is None or type(done.exception) is UserError, done.exception
        return str(done.exception or "")

    return run


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("too large", "codes from 99 to 99"),
        ("negative", "codes from -1 to -1"),
        ("wraps in 16 bits", "codes from 65541 to 65541"),
        ("halves", "an array of float64"),
        ("a row short", "an array of shape (16, 3, 4)"),
        ("nothing", "None"),
        ("a list", "a builtins.list"),
    ],
)
def test_what_is_no_code_of_the_tokenizer_ends_the_run_in_two_lines(
    mode: str, said: str, tokenized: Callable[..., str], tmp_path: Path
) -> None:
    assert tokenized(mode).splitlines() == [
        f"tokenizer bad: encode of 16 × 32 × 32 pixels returned {said}",
        "wanted: a NumPy array of whole numbers from 0 to 15, of shape (16, 4, 4)",
    ]
    assert len(Dataset(tmp_path / "out")) == 0 and not (tmp_path / "out" / "shards").exists()


def test_a_fault_that_comes_after_the_canary_gets_into_no_row_and_mended_the_run_goes_on(
    tokenized: Callable[..., str], tmp_path: Path
) -> None:
    assert tokenized("later").startswith("tokenizer bad: encode of 1 × 32 × 32 pixels returned codes from 16 to 16\n")
    assert len(Dataset(tmp_path / "out")) == 0 and not list((tmp_path / "out").glob("shards/*"))
    assert tokenized() == ""
    (row,) = Dataset(tmp_path / "out").rows()
    assert (row.codes == np.full((1, 4, 4), 15)).all()


@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_a_plug_in_raises_is_told_with_its_name_in_two_lines(command: str, tokenized: Callable[..., str]) -> None:
    said = tokenized("raises", command=command).splitlines()
    assert len(said) == 2 and said[0].startswith("tokenizer bad: its encode raised IndexError: index 1000000 is out")
    said = tokenized(options={"colour": 1}).splitlines()
    assert len(said) == 2 and said[0].startswith("tokenizer bad: its make raised TypeError: ")


def test_codes_of_8_bits_become_their_ids(tokenized: Callable[..., str], tmp_path: Path) -> None:
    assert tokenized("8 bits", {"vocab_size": 256, "says": 256}) == ""
    (row,) = Dataset(tmp_path / "out").rows()
    assert set(row.tokens[1:-1].tolist()) == {255 + 4}


@pytest.mark.parametrize(("own", "said"), [(17, 16), (-1, -1), (1 << 40, 1 << 40), ("16", "16")])
def test_a_vocabulary_that_is_none_or_not_what_the_spec_says_is_refused(
    own: object, said: object, tokenized: Callable[..., str]
) -> None:
    told = f"tokenizer bad: its vocab_size is {own!r}, and its spec says {said!r}; both must be the same whole number"
    assert tokenized(options={"vocab_size": own, "says": said}).startswith(told)
