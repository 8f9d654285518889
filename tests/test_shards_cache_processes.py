"""The cache among processes: killed at any moment, forked, spawned, many that fill and empty it at once."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cache_world import (  # noqa: F401
    FILE,
    anew,
    cache_of_a_test,
    cached_world,
    files,
    in_child,
    in_memory,
    places,
    stored,
    tokens,
    units,
)

from toto import Dataset
from toto.shards.batch_source import BATCHES, BatchSource
from toto.shards.cache import batches as cache
from toto.shards.cache.kept import Kept
from toto.shards.cache.space import Space

FORK, SPAWN = (multiprocessing.get_context(how) for how in ("fork", "spawn"))


def die(*arguments: object, **named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_then_die(self: object, path: Path, data: Any) -> None:
    part = self._space.scratch()  # type: ignore[attr-defined]
    part.write_bytes(memoryview(data)[: len(data) // 2])
    die()


def after(act: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: (act(*arguments, **named), die())


MOMENTS = {
    "counted, nothing written": (cache.Cache, "_place", die),
    "half written": (cache.Cache, "_place", half_then_die),
    "written, not renamed": (cache, "_rename", die),
    "renamed": (cache, "_rename", after(cache._rename)),
    "room being made": (os, "rmdir", die),
    "room made, sum not corrected": (os, "truncate", die),
}
posix = pytest.mark.skipif(sys.platform == "darwin", reason="macOS may kill a fork of a process with threads")


@posix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_leaves_no_wrong_data_and_no_litter(
    moment: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 8 * FILE
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment])
        assert in_child(lambda: tokens(anew(root, limit))) == signal.SIGKILL
    assert tokens(anew(root, limit)) == stored(root)
    assert files(folder, "tmp") == []
    kept = units(folder)
    assert kept <= Space(folder).used <= limit
    Space(folder, limit).tidy()
    assert Space(folder).used == units(folder)


def fill(root: Path, seed: int, limit: int) -> bytes:
    """Every batch in an order of this process's own, three times; what it read, joined."""
    data = Dataset(root, cache_bytes=limit)
    known, found = places(data), {}
    for _ in range(3):
        for i in np.random.default_rng(seed).permutation(len(known)).tolist():
            BATCHES._forget()
            found[i] = data.shard_batch(*known[i]).tokens.tobytes()
    return b"".join(found[i] for i in sorted(found))


@posix
def test_processes_that_fill_and_empty_one_cache_at_once_read_the_same(root: Path, folder: Path) -> None:
    limit = 5 * FILE
    expected = b"".join(stored(root))
    with FORK.Pool(3) as pool:
        killed = FORK.Process(target=fill, args=(root, 9, limit))
        killed.start()
        found = pool.starmap_async(fill, [(root, seed, limit) for seed in range(3)])
        time.sleep(0.05)
        killed.kill()
        killed.join()
        assert found.get(200) == [expected] * 3
    assert len(files(folder)) <= 5 + 4 and Space(folder).used <= limit + 4 * FILE  # one more of each process


@posix
def test_a_fork_while_batches_are_on_their_way_reads_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(root)
    expected, known, begun, go_on = stored(root), places(data), threading.Event(), threading.Event()
    bring, parent = BatchSource._bring, os.getpid()

    def slow(self: BatchSource, shard: int, batch: int) -> Any:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(200)
        return bring(self, shard, batch)

    monkeypatch.setattr(BatchSource, "_bring", slow)
    data.prefetch(known)
    assert begun.wait(200)

    def child() -> None:
        data.prefetch(known)
        assert [data.shard_batch(*place).tokens.tobytes() for place in known] == expected

    status = in_child(child)
    go_on.set()
    assert status == 0 and tokens(data) == expected


def row_of(data: Dataset, i: int) -> bytes:
    return data.row(i).tokens.tobytes()


def test_a_spawned_worker_reads_through_the_same_cache(root: Path, folder: Path) -> None:
    data = Dataset(root)
    expected = data.row(7).tokens.tobytes()
    with SPAWN.Pool(1) as pool:
        assert pool.apply(row_of, (data, 7)) == expected
    assert len(files(folder)) == 1


@posix
def test_a_fork_has_what_was_kept_and_makes_what_was_being_made() -> None:
    kept, begun, go_on = Kept[int](4, 100, lambda value: value), threading.Event(), threading.Event()
    kept.get("there", lambda: 1)

    def slow() -> int:
        begun.set()
        go_on.wait(200)
        return 2

    maker = threading.Thread(target=kept.get, args=("coming", slow))
    maker.start()
    assert begun.wait(200)

    def child() -> None:
        assert kept.find("there") == 1 and kept.find("coming") is None and kept.coming == 0
        assert kept.get("coming", lambda: 3) == 3 and kept.get("large", lambda: 98) == 98
        assert kept.find("there") is None and kept.find("coming") is None  # what they take was counted anew

    status = in_child(child)
    go_on.set()
    maker.join()
    assert status == 0 and kept.find("coming") == 2


@posix
def test_a_forked_process_goes_on_where_its_parent_read_ahead(root: Path) -> None:
    rows = in_memory(root, "forked").rows()
    first = next(rows).source

    def rest() -> None:
        signal.alarm(200)
        assert [first, *(row.source for row in rows)] == [row.source for row in Dataset(root).rows()]

    assert in_child(rest) == 0
    assert len(list(rows)) == len(Dataset(root)) - 1
