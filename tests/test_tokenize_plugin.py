"""A tokenizer of somebody else's: a package with an entry point, used from pipelines.yaml to shards and back.

The package's code here is the example of docs/tokenize.md.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from clips import ROOT, call, write_image

from toto import Dataset
from toto.errors import UsageError
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
