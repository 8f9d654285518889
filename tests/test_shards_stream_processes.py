"""Batches of a stream made by several processes: the same in the same order, and nothing is left of the processes."""

import errno
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_world import in_child
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto.errors import UsageError, UserError
from toto.shards.reader import ShardReader
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
        assert batch.tokens.flags.writeable


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


def test_what_a_process_cannot_make_the_reader_makes(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, fill = os.getpid(), Stream.fill

    def failing(self: Stream, *arguments: Any) -> int:
        if os.getpid() != reader:
            raise OSError("too many open files")
        return fill(self, *arguments)

    monkeypatch.setattr(Stream, "fill", failing)
    found = list(stream.batches([range(0, 5), range(5, 9)], 2))
    assert (np.concatenate([batch.tokens for batch in found]) == stream.sequences(range(9)).tokens).all()


def test_batches_may_grow(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ROUND", 4)
    monkeypatch.setattr(processes, "AT_ONCE", 16)
    wanted = [range(i, i + size) for i, size in enumerate([1, 3, 9, 2, 30, 0, 5, 70, 1])]
    for batch, numbers in zip(stream.batches(wanted, 2), wanted, strict=True):
        assert batch.hash == stream.sequences(numbers).hash and len(batch) == len(numbers)


def test_memory_is_used_again_but_for_what_the_reader_holds(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ROUND", 8)
    places, held = set(), []
    for i, batch in enumerate(stream.batches((range(8 * i, 8 * i + 8) for i in range(60)), 2)):
        places.add(batch.tokens.ctypes.data)
        if i % 20 == 7:
            held.append((batch.tokens[2:4].reshape(-1)[3:], stream.sequences(range(8 * i, 8 * i + 8)).tokens[2:4]))
    assert len(places) < 30
    for mine, known in held:
        assert (mine == known.reshape(-1)[3:]).all()


def test_a_fork_that_holds_a_batch_keeps_it(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "ROUND", 8)
    read = stream.batches((range(8 * i, 8 * i + 8) for i in range(40)), 1)
    next(read)
    batch = next(read)
    ours, theirs = multiprocessing.Pipe()

    def hold(tokens: np.ndarray) -> None:
        theirs.recv()
        theirs.send((tokens == stream.sequences(range(8, 16)).tokens).all())

    child = multiprocessing.Process(target=hold, args=(batch.tokens,))
    child.start()
    del batch
    for i, other in enumerate(read, 2):
        assert other.numbers[0] == 8 * i
    ours.send("all were read")
    assert ours.recv()
    child.join()


def test_a_record_batch_is_read_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    videos = [Video(f"{i}.mp4", rng.integers(0, 60, (20, 2, 2))) for i in range(20)]
    monkeypatch.setenv("TOTO_CACHE_BYTES", "0")
    made = write_tokens(tmp_path / "set", videos, unit_sources=9, batch_bytes=600)
    of = Stream(make_recipe([("world", str(made), 1, None)], 4, 4, 0, 8))
    batch_of, log = ShardReader.batch, tmp_path / "log"

    def told(shard: ShardReader, i: int, *more: Any) -> Any:
        with open(log, "a") as file:
            file.write(f"{shard.name} {i}\n")
        return batch_of(shard, i, *more)

    monkeypatch.setattr(ShardReader, "batch", told)
    count = of.sequences_per_epoch()["world"]
    assert sum(len(batch) for batch in of.batches([range(i, i + 20) for i in range(0, count, 20)], 2)) >= count
    read = log.read_text().splitlines()
    assert len(read) == len(set(read)) > 5


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
    (child,) = readers()
    child.terminate()  # as the end of Python does, which then waits
    child.join(200)
    assert not child.is_alive()
    read.close()


def test_no_room_is_told_in_one_line_and_a_number_below_zero_refused(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    gc.collect()
    before = open_files()
    with pytest.raises(UserError, match="shared memory for reading processes: No space left on device; try smaller"):
        list(stream.batches([range(4)], 2))
    assert not open_files() - before  # what others left may have been closed
    with pytest.raises(UsageError, match="workers: -1"):
        list(stream.batches([range(4)], -1))


def test_a_process_that_is_killed_is_told_in_one_line(stream: Stream) -> None:
    read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 2)
    next(read)
    children = readers()
    os.kill(children[0].pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="^a reading process ended early, maybe for want of memory; try fewer workers$"):
        list(read)
    assert not any(child.is_alive() for child in children)


def test_a_process_that_is_killed_is_told_where_another_one_holds_its_pipe(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, held = multiprocessing.Pipe, list[int]()

    def pipe() -> tuple[Connection, Connection]:
        ours, theirs = make()
        held.append(os.dup(theirs.fileno()))  # as what another thread forked at this moment does
        return ours, theirs

    monkeypatch.setattr(multiprocessing, "Pipe", pipe)
    monkeypatch.setattr(processes, "LOOK_S", 0.05)
    read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 1)
    next(read)
    (child,) = readers()
    os.kill(child.pid or 0, signal.SIGKILL)
    with pytest.raises(UserError, match="^a reading process ended early"):
        list(read)
    for handle in held:
        os.close(handle)


def test_closing_leaves_no_process_no_file_and_no_shared_memory(stream: Stream) -> None:
    gc.collect()  # what earlier tests left
    before, mapped = open_files(), _mapped()
    read = stream.batches((range(i, i + 4) for i in range(0, 4000, 4)), 2)
    next(read)
    assert len(readers()) == 2 and _mapped() == mapped + 5
    read.close()
    assert readers() == []
    assert not open_files() - before and _mapped() == mapped


def open_files() -> Counter[str]:
    """What this process holds open, by name and number of handles; the folder that is listed is none of it."""
    names = Counter[str]()
    for handle in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            names[os.readlink(f"/proc/self/fd/{handle}")] += 1
    return names


def readers() -> list[BaseProcess]:
    """The processes that read for this one."""
    return [child for child in multiprocessing.active_children() if child.name == "toto-batches"]


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
        (tmp_path / "pids").write_text(" ".join(str(child.pid) for child in readers()))
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(owner) == signal.SIGKILL
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    until = time.monotonic() + 200
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
