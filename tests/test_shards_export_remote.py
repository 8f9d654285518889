"""Exports to a store that speaks S3 over a wire that fails: the files that a folder gets, and meta.json last."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import warm
from click.testing import CliRunner
from clips import environment
from fault_proxy import FaultProxy
from object_store import BUCKET, faults, s3  # noqa: F401
from rewrites import in_child
from token_world import moving_videos, write_tokens

from toto.errors import UserError
from toto.shards.cli import cli
from toto.shards.export import prefix
from toto.shards.export.arrays import NpyFile
from toto.shards.export.prefix import UNFINISHED
from toto.shards.export.tars import Tars
from toto.shards.store import RemoteStore, open_store
from toto.shards.store import owner as store_owner
from toto.shards.store import retry as store_retry
from toto.shards.store.owner import LOCK

pytestmark = pytest.mark.xdist_group("s3")
QUICK = {"BEAT_S": 0.05, "LOOK_S": 0.02, "WATCH_S": 0.3, "SETTLE_S": 0.02}  # instead of 10, 2, 35 and 3 seconds


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, of several record batches."""
    videos = [*moving_videos(6, frames=20), *moving_videos(2, "val", frames=9)]
    return write_tokens(tmp_path_factory.mktemp("export") / "shards", videos, batch_bytes=400)


@pytest.fixture
def store(faults: FaultProxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[RemoteStore]:  # noqa: F811
    """An empty prefix of this test's own; a killed export is taken over at once."""
    monkeypatch.setattr(store_retry, "PAUSES_S", (0.01,) * 6)
    for name, seconds in QUICK.items():
        monkeypatch.setattr(store_owner, name, seconds)
    store = open_store(f"s3://{BUCKET}/{request.node.name}")
    assert isinstance(store, RemoteStore)
    yield store


def export(shards: Path, out: str | Path, words: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["export", str(shards), "--out", str(out), "--json", *words.split()])
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exception is None, done.output
    return json.loads(done.stdout.splitlines()[-1])


def files_of(place: str | Path) -> dict[str, bytes]:
    """Name -> bytes of all that is there, read past the proxy's faults."""
    if isinstance(place, Path):
        return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    files, top = fsspec.filesystem("s3", use_listings_cache=False), place.removeprefix("s3://")
    return {name.removeprefix(f"{top}/"): files.cat_file(name) for name in files.find(top)}


@pytest.mark.parametrize("target", ["webdataset", "hf", "litdata", "npy"])
def test_a_bucket_gets_the_files_that_a_folder_gets_and_meta_last(
    target: str,
    shards: Path,
    store: RemoteStore,
    faults: FaultProxy,  # noqa: F811
    tmp_path: Path,
) -> None:
    small = "" if target == "npy" else " --shard-bytes 3000"
    words = f"--to {target} --frames 4{small}"
    here = export(shards, tmp_path / "out", words)
    faults.share, asked = 0.1, len(faults.requests)
    there = export(shards, store.uri, words)
    faults.share = 0.0
    assert files_of(store.uri) == files_of(tmp_path / "out")
    assert {**here, "out": ""} == {**there, "out": ""}
    puts = [path.split("?")[0] for method, path in faults.requests[asked:] if method == "PUT" and LOCK not in path]
    ends = ("unfinished.json", "index.json", "README.md", "meta.json")
    order = [next((end for end in ends if path.endswith(end)), "data") for path in puts]
    assert [*dict.fromkeys(order)] == [end for end in ("unfinished.json", "data", *ends[1:]) if end in order]


def test_what_is_there_is_replaced_only_when_asked_and_what_is_not_ours_never(shards: Path, store: RemoteStore) -> None:
    export(shards, store.uri, "--to npy --frames 4")
    with pytest.raises(UserError, match=r"holds an export already; .* --force"):
        export(shards, store.uri, "--to bin --frames 4")
    export(shards, store.uri, "--to bin --frames 4 --force")
    names = {*files_of(store.uri)}
    assert "train.bin" in names and "train.npy" not in names and UNFINISHED not in names
    told = json.loads(store.read("meta.json"))["contents"]
    assert told == {name: len(data) for name, data in files_of(store.uri).items() if name != "meta.json"}
    for mine in ("notes.txt", "test.bin", "train.npy"):  # also what is called as files of exports are
        store.write(mine, b"mine")
        with pytest.raises(UserError, match=rf"not of the export \({mine}\)"):
            export(shards, store.uri, "--to npy --frames 4 --force")
        assert {*files_of(store.uri)} == names | {mine}
        store.remove(mine)
    other = open_store(f"{store.uri}-other")
    other.write("train-000000.tar", b"somebody's")
    with pytest.raises(UserError, match=r"not an export \(train-000000.tar\)"):
        export(shards, other.uri, "--to webdataset --frames 4 --force")


def test_an_export_that_is_refused_half_way_leaves_no_file_of_it(
    shards: Path,
    store: RemoteStore,
    faults: FaultProxy,  # noqa: F811
) -> None:
    faults.once = [("PUT", "val.npy", "403")]
    with pytest.raises(UserError, match="val.npy: access denied"):
        export(shards, store.uri, "--to npy --frames 4")
    assert {*files_of(store.uri)} == {UNFINISHED}
    assert export(shards, store.uri, "--to npy --frames 4")["files"] == len(files_of(store.uri)) == 6


def test_an_export_that_is_stopped_leaves_what_others_put_there_meanwhile(
    shards: Path, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*told: object) -> None:
        store.write("notes/train.npy", b"mine")
        store.write("val.npy", b"mine too, though called as a file that the export had yet to write")
        raise UserError("stopped")

    monkeypatch.setattr(NpyFile, "close", stopped)
    with pytest.raises(UserError, match="stopped"):
        export(shards, store.uri, "--to npy --frames 4")
    assert {*files_of(store.uri)} == {UNFINISHED, "notes/train.npy", "val.npy"}


def test_an_export_whose_place_was_taken_leaves_what_is_there(
    shards: Path, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def taken(*told: object) -> None:
        store.write("train-000007.tar", b"the other one's")
        store.write(LOCK, b'{"owner": "other-2", "beat": 1}')
        while True:  # until the beat finds that
            time.sleep(0.05)

    monkeypatch.setattr(Tars, "write", taken)
    with pytest.raises(UserError, match="the run other-2 is going on, and only one export at a time"):
        export(shards, store.uri, "--to webdataset --frames 4")
    assert {*files_of(store.uri)} == {UNFINISHED, LOCK, "train-000007.tar"}


def endless() -> None:
    """The seventh piece is never written; a lock is renewed as often as in these tests."""
    vars(store_owner).update(QUICK)
    write, left = Tars.write, iter(range(6))

    def waiting(*piece: Any) -> None:
        while next(left, None) is None:
            time.sleep(0.05)
        write(*piece)

    Tars.write = waiting  # type: ignore[method-assign]


def test_a_killed_export_is_not_whole_and_the_next_one_replaces_it(
    shards: Path, store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, said = tmp_path / "out", (tmp_path / "stdout", tmp_path / "stderr")
    export(shards, expected, "--to webdataset --frames 4 --shard-bytes 3000")
    words = ["export", str(shards), "--to", "webdataset", "--frames", "5", "--shard-bytes", "1000", "--out", store.uri]
    process = warm.start("shards", words, said, environment(), first=endless)
    while "train-000001.tar" not in {name for name, *_ in store.tree()}:
        assert process.is_alive(), said[1].read_text()
        time.sleep(0.1)
    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"going on, and only one export at a time is"):
        patch.setattr(store_owner, "WATCH_S", 60)  # however late a beat comes here
        export(shards, store.uri, "--to npy --frames 4")
    process.kill()
    process.join()
    assert {UNFINISHED, LOCK} < {*files_of(store.uri)} and "meta.json" not in files_of(store.uri)
    store.write("notes.txt", b"mine")
    with pytest.raises(UserError, match=r"not of the export \(notes.txt\)"):
        export(shards, store.uri, "--to webdataset --frames 4")
    store.remove("notes.txt")
    export(shards, store.uri, "--to webdataset --frames 4 --shard-bytes 3000")
    assert files_of(store.uri) == files_of(expected)


def test_a_killed_replacement_is_replaced_with_what_it_was_to_replace(
    shards: Path, store: RemoteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(shards, store.uri, "--to bin --frames 4")
    monkeypatch.setattr(prefix, "_clear", lambda store, names: store.remove("meta.json"))  # no more before it died
    monkeypatch.setattr(Tars, "write", lambda *piece: os.kill(os.getpid(), signal.SIGKILL))
    child = in_child(lambda: export(shards, store.uri, "--to webdataset --frames 4 --force"))
    child.join()
    assert child.exitcode == -signal.SIGKILL and {"train.bin", UNFINISHED} < {*files_of(store.uri)}
    monkeypatch.undo()
    store.remove(LOCK)
    export(shards, store.uri, "--to npy --frames 4")
    assert {name for name in files_of(store.uri) if name.startswith("train")} == {"train.npy", "train.pieces.parquet"}
