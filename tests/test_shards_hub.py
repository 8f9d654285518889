"""hf:// against a stand-in on this machine that answers what huggingface_hub's file system asks. The Hub itself and its
storage (Xet) are not tested."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner
from hub_server import hub_server
from rewrites import QUIET, rows, whole
from token_world import Video, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards import sealed_files
from toto.shards.cli import cli
from toto.shards.recipe import make_recipe
from toto.shards.rewrite.importing import import_tokens
from toto.shards.rewrite.pack import pack
from toto.shards.store import open_store
from toto.shards.store import owner as store_owner
from toto.shards.store import retry as store_retry
from toto.shards.stream import Stream
from toto.shards.verify import verify


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two shards of several batches, in a folder that is a repository of the stand-in."""
    rng = np.random.default_rng(0)
    videos = [Video(f"{i:02d}.mp4", rng.integers(0, 8192, (64, 8, 8))) for i in range(8)]
    root = tmp_path_factory.mktemp("hub") / "set"
    return write_tokens(root, videos, vocab_size=8192, unit_sources=4, batch_bytes=16 << 10)


@pytest.fixture
def hub(local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """hf:// is the stand-in; copies and batches go into a cache of this test's own."""
    with hub_server(local.parent) as (address, asked):
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": address, "token": "hf_nobody"})
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # a test before may have wanted that
        monkeypatch.setattr(store_retry, "PAUSES_S", (0.01, 0.01))
        monkeypatch.setattr(store_owner, "SETTLE_S", 0.02)
        monkeypatch.setattr(sealed_files, "PAUSES_S", (0.01, 0.01))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield "hf://datasets/somebody/set", asked


def test_a_dataset_of_the_hub_reads_as_the_folder_does(hub: tuple[str, list[str]], local: Path) -> None:
    uri, asked = hub
    there, here = Dataset(uri), Dataset(local)
    opened = len(asked)
    assert (there.row(5).tokens == here.row(5).tokens).all()
    parts = [line for line in asked[opened:] if "resolve" in line]
    assert len(parts) == 3  # beginning and end of the shard, and one batch
    assert [row.tokens.tobytes() for row in there.rows()] == [row.tokens.tobytes() for row in here.rows()]
    assert verify(open_store(uri), deep=True).problems == []
    made = [make_recipe([("a", str(place), 1, "train")], 8, 4, 0, 4) for place in (uri, local)]
    assert made[0].id == made[1].id
    one, other = (Stream(recipe).sequences(range(20)).tokens for recipe in made)
    assert (one == other).all()


def test_what_is_not_there_is_named(hub: tuple[str, list[str]]) -> None:
    for uri in ("hf://datasets/somebody/set/nothing", "hf://datasets/somebody/none"):
        with pytest.raises(UserError, match=f"no dataset at {uri}|{uri}/dataset.json"):
            Dataset(uri)
    store = open_store(hub[0])
    assert store.exists("dataset.json") and not store.exists("other.json") and store.list("nothing") == []


def test_codes_of_the_hub_are_imported(hub: tuple[str, list[str]], local: Path, tmp_path: Path) -> None:
    codes = np.arange(2 * 4 * 4).reshape(2, 4, 4)
    folder = local.parent / "codes" / "a"
    folder.mkdir(parents=True)
    np.save(folder / "0.npy", codes)
    given = {"vocab_size": 64, "patch": 8}
    for source, out in (("hf://datasets/somebody/codes", "there"), (str(folder.parent), "here")):
        import_tokens(source, str(tmp_path / out), "somebodys", given=given)
    there, here = Dataset(tmp_path / "there"), Dataset(tmp_path / "here")
    assert there.dataset_id == here.dataset_id and (there.row(0).codes == codes).all()


def test_a_packed_dataset_is_written_to_the_hub(hub: tuple[str, list[str]], local: Path) -> None:
    (local.parent / "packed").mkdir()
    target = "hf://datasets/somebody/packed"
    pack(str(local), target, 20_000, 0, QUIET)
    assert whole(target) and rows(target) == rows(local)
    assert rows(local.parent / "packed") == rows(local)


def test_an_export_is_written_to_the_hub_and_replaced(hub: tuple[str, list[str]], local: Path, tmp_path: Path) -> None:
    there = local.parent / "export"
    there.mkdir()
    for words in (["--frames", "16"], ["--frames", "8", "--force"]):
        for out in (str(tmp_path / "here"), "hf://datasets/somebody/export"):
            arguments = ["export", str(local), "--to", "hf", "--shard-bytes", "100000", "--out", out, *words]
            assert CliRunner().invoke(cli, arguments, catch_exceptions=False).exit_code == 0
        assert {p.relative_to(there): p.read_bytes() for p in there.rglob("*") if p.is_file()} == {
            p.relative_to(tmp_path / "here"): p.read_bytes() for p in (tmp_path / "here").rglob("*") if p.is_file()
        }
