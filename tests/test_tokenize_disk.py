"""A disk that is full or read-only, a file in the way, Ctrl-C and SIGTERM: one line, the rest whole, and a way on."""

import os
import signal
from pathlib import Path

import pytest
from clips import PIXELS, one_line, tokenize, write_clips
from drill_tokenize import Content, content, undisturbed
from faults import waiting_path
from ray_run import Run
from small_disk import Disk, small_disk  # noqa: F401

from toto import Dataset
from toto.shards.commit import read_commits
from toto.shards.hashing import file_sha256
from toto.shards.snapshot import DATASET
from toto.shards.store import open_store
from toto.shards.verify import verify

UNITS = 6


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of one unit each, whose shard takes about 270 KB."""
    return write_clips(tmp_path_factory.mktemp("clips"), UNITS, 520)


@pytest.fixture(scope="module")
def expected(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Content:
    return undisturbed(world, tmp_path_factory.mktemp("undisturbed") / "set")


def committed_and_whole(out: Path) -> int:
    """How many units are committed; every file that counts is as it was written, and what is sealed can be read."""
    store = open_store(out)
    commits = read_commits(store)
    for ref in (ref for commit in commits for ref in (commit.shard, commit.sources)):
        assert ref is not None
        assert file_sha256(out / ref.path) == ref.sha256
    if store.exists(DATASET):
        assert verify(store, deep=True).problems == []
        assert Dataset(out).info["units"]["committed"] <= len(commits)
    return len(commits)


@pytest.mark.parametrize(("size", "some"), [("16k", False), ("200k", False), ("700k", True)])
def test_a_full_disk_is_told_in_one_line_and_the_run_goes_on_when_there_is_space(
    size: str, some: bool, disk: Disk, world: Path, expected: Content
) -> None:
    out = disk.place / "set"
    disk.remount(f"size={size}")
    done = tokenize(world, out, *PIXELS)
    assert done.returncode == 1
    assert one_line(done.stderr, f"{out}/tmp: the disk is full"), done.stderr
    assert (0 < committed_and_whole(out) < UNITS) if some else committed_and_whole(out) == 0
    disk.remount("size=64m")
    again = tokenize(world, out, *PIXELS)
    assert again.returncode == 0, again.stderr
    assert content(out) == expected


@pytest.mark.parametrize("begun", [False, True])
def test_a_read_only_target_is_told_in_one_line(begun: bool, disk: Disk, world: Path) -> None:
    out = disk.place / "set"
    if begun:
        assert tokenize(world, out, *PIXELS, "--limit", "2").returncode == 0
    disk.remount("ro")
    done = tokenize(world, out, *PIXELS)
    assert done.returncode == 1
    assert one_line(done.stderr, "read-only"), done.stderr
    if begun:
        assert committed_and_whole(out) == 2


@pytest.mark.parametrize("way", ["set", "set/below"])
def test_a_file_in_the_way_is_told_in_one_line(way: str, tmp_path: Path, world: Path) -> None:
    (tmp_path / "set").write_bytes(b"somebody's file")
    done = tokenize(world, tmp_path / way, *PIXELS)
    assert done.returncode == 1
    assert one_line(done.stderr, "a file is in the way"), done.stderr
    assert (tmp_path / "set").read_bytes() == b"somebody's file"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds a run's processes through /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_the_middle_seals_what_is_done_and_the_run_goes_on_later(
    number: signal.Signals, code: int, world: Path, expected: Content, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    run = Run(world, out, *PIXELS, "--ray-address", "local", PYTHONPATH=waiting_path(tmp_path / "path", 2))
    run.wait_for_commits(1)
    os.kill(run.process.pid, number)
    assert run.end() == code, run.stderr()
    assert "run the same command again to go on" in run.stderr()
    run.wait_until_gone()
    assert 0 < committed_and_whole(out) == Dataset(out).info["units"]["committed"] < UNITS
    assert content(out).rows < expected.rows
    again = tokenize(world, out, *PIXELS)
    assert again.returncode == 0, again.stderr
    assert content(out) == expected
