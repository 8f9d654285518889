"""Sources in a bucket, tokens into a bucket, over a wire that fails: the dataset that a local run gives."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import warm
from clips import PIXELS, SECONDS, environment, killed, reasons_of, rows_of, run_arguments, tokenize, write_clips
from clips import write_image as draw
from fault_proxy import FaultProxy
from object_store import BUCKET, faults, s3, upload  # noqa: F401

from toto import Dataset
from toto.shards.commit import COMMITS, SHARDS
from toto.shards.store import RemoteStore, open_store
from toto.shards.store import owner as store_owner
from toto.shards.verify import verify
from toto.tokenize.cli import cli
from toto.tokenize.status import status

pytestmark = pytest.mark.xdist_group("s3")
Content = tuple[str, Counter[str]]


@pytest.fixture(scope="module", autouse=True)
def as_users_have_it(s3: FaultProxy) -> Iterator[None]:  # noqa: F811
    """botocore tries again by itself: sources are read by it alone, then given up after four tries of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_MAX_ATTEMPTS", "3")
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two units and a rest: videos, a picture, a broken file and an empty one."""
    folder = write_clips(tmp_path_factory.mktemp("videos"), 4, 300)
    draw(folder / "a" / "one.png", seed=1)
    (folder / "broken.mp4").write_bytes(b"not a video")
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Dataset id and rows of a run on this machine."""
    out = tmp_path_factory.mktemp("local") / "set"
    run_here(world, out)
    assert Dataset(out).info["units"]["committed"] >= 3
    return content(out)


def content(out: str | Path) -> Content:
    """What must be the same: dataset id and rows."""
    return Dataset(out).dataset_id, rows_of(out)  # type: ignore[arg-type]


def run_here(sources: str | Path, out: str | Path) -> None:
    """`toto-tokenize run` in this process, which has imported everything."""
    words = ["run", *run_arguments(sources, out), *PIXELS, "--ray-address", "local"]  # type: ignore[arg-type]
    assert cli.main(words, standalone_mode=False) == 0


def target(name: str) -> str:
    """A dataset in the bucket."""
    return f"s3://{BUCKET}/set-{name}"


def test_sources_and_target_in_a_bucket_that_fails_give_the_local_dataset(
    world: Path,
    expected: Content,
    faults: FaultProxy,  # noqa: F811
) -> None:
    sources, out = upload(world, "sources"), target("remote")
    faults.share = 0.15
    run_here(sources, out)
    assert sum(faults.met.values()) >= 10
    assert content(out) == expected
    assert reasons_of(out) == {"broken.mp4": "open_error", "empty.mp4": "empty"}  # type: ignore[arg-type]
    report = verify(open_store(out), deep=True)
    assert report.problems == [] and report.leftovers == []
    assert status(open_store(out)).committed_units == 3


def test_two_runs_at_once_end_what_two_killed_ones_began(
    world: Path,
    expected: Content,
    faults: FaultProxy,  # noqa: F811
    tmp_path: Path,
) -> None:
    out = target("killed")
    for point in ("after_shard", "after_commit"):
        crashed = tokenize(world, out, *PIXELS, TOTO_CRASH_AT=point)  # type: ignore[arg-type]
        assert killed(crashed), (point, crashed.stderr)
    assert len(open_store(out).list(COMMITS)) == 1
    words = ["run", *run_arguments(world, out), "--ray-address", "local", *PIXELS]  # type: ignore[arg-type]
    faults.share = 0.05
    said = [(tmp_path / f"stdout-{i}", tmp_path / f"stderr-{i}") for i in range(2)]
    runs = [warm.start("tokenize", words, output, environment()) for output in said]
    for run, (_, stderr) in zip(runs, said, strict=True):
        run.join(SECONDS)
        assert run.exitcode == 0, stderr.read_text()
    faults.share = 0.0
    assert content(out) == expected
    assert verify(open_store(out), deep=True).problems == []


def test_a_store_that_forgets_conditions_takes_one_run(
    world: Path,
    expected: Content,
    faults: FaultProxy,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = target("careless")
    faults.careless = True
    monkeypatch.setattr(store_owner, "SETTLE_S", 0.1)
    run_here(world, out)
    told = capsys.readouterr().err
    assert f"{out} lets two writers create the same file: only one run at a time is allowed here" in told
    assert content(out) == expected and open_store(out).list("tmp") == []


def test_of_an_upload_that_was_killed_nothing_is_seen(faults: FaultProxy) -> None:  # noqa: F811
    store = open_store(target("uploads"))
    assert isinstance(store, RemoteStore)
    code = f"""
import s3fs.core
from toto.shards.store import owner as store_owner
from toto.shards.store import open_store
s3fs.core.calculate_chunksize = lambda size, chunksize=None: 5 << 20
store = open_store({store.uri!r})
path = store.scratch()
path.write_bytes(bytes(24 << 20))
store.publish(path, "shards/large.arrow")
"""
    faults.once = [("PUT", f"partNumber={part}", "held") for part in range(2, 6)]
    faults.requests.clear()
    uploader = subprocess.Popen([sys.executable, "-c", code], env=environment())
    while not any("partNumber" in path for _, path in faults.requests):
        time.sleep(0.01)
        assert uploader.poll() is None
    os.kill(uploader.pid, signal.SIGKILL)
    uploader.wait()
    assert store.list(SHARDS) == []
    assert store.abort_uploads(0) == ("shards/large.arrow (an upload in parts)",)
