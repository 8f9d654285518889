"""Batches of a stream made by several processes: the same in the same order, and nothing is left of the processes."""

import errno
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from cache_world import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto.errors import UsageError, UserError
from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream
from toto.shards.streaming import processes

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="macOS may kill a fork of a process with threads")


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stream]:
    """Videos in two views and images of 2×2 codes, with pixels, in several shards and batches."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 60, (n, 2, 2)) for n in rng.integers(9, 40, 20).tolist()]
    videos = [Video(f"{i}.mp4", one, views=2) for i, one in enumerate(codes)]
    images = [Image(f"{i}.png", rng.integers(0, 60, (2, 2)), views=2) for i in range(40)]
    root = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOTO_CACHE", str(root / "cache"))
        made = write_tokens(root / "set", videos, images, unit_sources=9, batch_bytes=600)
        yield Stream(make_recipe([("world", str(made), 1, None)], 4, 4, 0, 8))


WANTED = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 300), st.integers(0, 40)).map(lambda pair: range(pair[0], sum(pair))),
        st.lists(st.integers(0, 10**12), max_size=9).map(lambda numbers: np.array(numbers, np.int64)),
    ),
    max_size=14,
)


@settings(max_examples=6)
@given(WANTED, st.integers(0, 3))
def test_batches_are_what_one_process_reads_in_the_same_order(
    stream: Stream, wanted: list[range | np.ndarray], workers: int
) -> None:
    found = list(stream.batches(iter(wanted), workers))
    assert len(found) == len(wanted)
    for batch, numbers in zip(found, wanted, strict=True):
        known = stream.sequences(numbers)
        assert (batch.tokens == known.tokens).all() and batch.tokens.dtype == known.tokens.dtype
        assert (batch.numbers == known.numbers).all() and (batch.parts == known.parts).all()
        assert batch.hash == known.hash and batch.pixels is None
        for mine, other in zip(*(islice(both, 1) for both in (batch, known)), strict=True):
            assert (mine.part, mine.epoch) == (other.part, other.epoch)
            one, two = ([(clip.source, clip.start, clip.row.view) for clip in both.clips] for both in (mine, other))
            assert one == two
        assert batch.tokens.flags.writeable and batch.tokens.base is None  # nobody writes into it later


def test_pixels_come_beside_the_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    videos = [
        Video(f"{i}.mp4", rng.integers(0, 60, (12, 2, 2)), pixels=rng.integers(0, 256, (12, 8, 8, 3), np.uint8))
        for i in range(4)
    ]
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    root = write_tokens(tmp_path / "set", videos, keep_pixels=8)
    of = Stream(make_recipe([("world", str(root), 1, None)], 4, 4, 0, 2), pixels=4)
    for batch, start in zip(of.batches([range(i, i + 2) for i in range(0, 12, 2)], 2), range(0, 12, 2), strict=True):
        known = of.sequences(range(start, start + 2))
        assert (batch.pixels == known.pixels).all() and (batch.patches == known.patches).all()


def test_what_goes_wrong_in_a_process_is_raised_in_its_turn(stream: Stream) -> None:
    read = stream.batches([range(0, 4), range(4, 8), range(-1, 3), range(8, 12)], 2)
    assert [len(next(read)), len(next(read))] == [4, 4]
    with pytest.raises(IndexError, match="sequence -1; the first is 0"):
        next(read)
    assert list(read) == []


def test_an_error_that_cannot_be_sent_is_told_by_its_name(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        def __init__(self, where: str, why: str) -> None:
            super().__init__(f"{where}: {why}")

    def fail(*_: object) -> None:
        raise Odd("here", "odd")

    monkeypatch.setattr(Stream, "sequences", fail)
    with pytest.raises(RuntimeError, match="^Odd: here: odd$"):
        list(stream.batches([range(4)], 1))


def test_long_lists_of_numbers_do_not_meet_long_answers_in_the_pipe(stream: Stream) -> None:
    wanted = [np.arange(i, i + 36_000) % 500 for i in range(4)]  # neither fits into a pipe that nobody reads
    hashes = stream.sequences(range(500)).hashes
    for batch, numbers in zip(stream.batches(wanted, 1), wanted, strict=True):
        assert (batch.hashes[:500] == hashes[numbers[:500]]).all() and (batch.numbers == numbers).all()


def test_who_ignores_a_signal_to_end_does_not_have_its_processes_ignore_it(stream: Stream) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 1)
        next(read)
    finally:
        signal.signal(signal.SIGTERM, before)
    (child,) = multiprocessing.active_children()
    child.terminate()  # as the end of Python does, which then waits
    child.join(20)
    assert not child.is_alive()
    read.close()


def test_no_room_is_told_in_one_line_and_a_number_below_zero_refused(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    gc.collect()
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UserError, match="shared memory for a reading process: No space left on device; try fewer"):
        list(stream.batches([range(4)], 2))
    assert len(os.listdir("/proc/self/fd")) == open_files
    with pytest.raises(UsageError, match="workers: -1"):
        list(stream.batches([range(4)], -1))


def test_a_process_that_is_killed_is_told_in_one_line(stream: Stream) -> None:
    read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 2)
    next(read)
    children = multiprocessing.active_children()
    os.kill(children[0].pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="^a reading process ended early, maybe for want of memory; try fewer workers$"):
        list(read)
    assert not any(child.is_alive() for child in children)


def test_closing_leaves_no_process_no_file_and_no_shared_memory(stream: Stream) -> None:
    gc.collect()  # what earlier tests left
    open_files, mapped = len(os.listdir("/proc/self/fd")), _mapped()
    read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 2)
    next(read)
    assert len(multiprocessing.active_children()) == 2 and _mapped() == mapped + 2
    read.close()
    assert multiprocessing.active_children() == []
    assert len(os.listdir("/proc/self/fd")) == open_files and _mapped() == mapped


def _mapped() -> int:
    return Path("/proc/self/maps").read_text().count("toto-batches")


@pytest.mark.parametrize("size", [4, 4_000])  # they wait for the next question; for somebody to take what they answer
def test_the_processes_of_one_that_is_killed_end(
    stream: Stream, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOOK_S", 0.1)

    def owner() -> None:
        read = stream.batches((range(size) for _ in range(99)), 2)
        next(read)
        (tmp_path / "pids").write_text(" ".join(str(child.pid) for child in multiprocessing.active_children()))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(owner) == signal.SIGKILL
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until = time.monotonic() + 20
    while any(_runs(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(pids) == 2 and not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_spawned_process_makes_them_too(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.multiprocessing, "Process", multiprocessing.get_context("spawn").Process)
    found = list(stream.batches([range(0, 9), range(9, 12)], 1))
    assert (np.concatenate([batch.tokens for batch in found]) == stream.sequences(range(12)).tokens).all()
