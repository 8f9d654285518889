"""A dataset for the tests of the cache, and what they look at: its batches, the cache's files, what is mapped."""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from token_world import Video, write_tokens

from toto import Dataset
from toto.shards.batch_source import BATCHES
from toto.shards.cache import batches as cache
from toto.shards.cache.space import UNIT

FILE = 9 * UNIT  # what a batch of `root` takes


@pytest.fixture(scope="module", name="root")
def cached_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 15 batches in all, 64 KiB of ids in each, so that a batch takes nine units of the cache (FILE)."""
    rng = np.random.default_rng(0)
    videos = [Video(f"{i:02d}.mp4", rng.integers(0, 8192, (64, 16, 16))) for i in range(30)]
    return write_tokens(tmp_path_factory.mktemp("set"), videos, vocab_size=8192, unit_sources=16, batch_bytes=64 << 10)


@pytest.fixture(autouse=True, name="folder")
def cache_of_a_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of each test's own; what is said once in a process may be said in each test."""
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOTO_CACHE_BYTES", raising=False)
    for known in (cache._opened, cache._say):
        known.cache_clear()
    yield tmp_path / "cache"


def anew(root: str | Path, nbytes: int | None = None) -> Dataset:
    """The dataset as another process opens it: without what this one has kept of it."""
    BATCHES._forget()
    return Dataset(root, cache_bytes=nbytes)


def places(data: Dataset) -> list[tuple[int, int]]:
    """(shard, number) of every batch."""
    shards = range(len(data.image_counts()))
    return [(shard, batch) for shard in shards for batch in range(len(data.batch_ends(shard)))]


def tokens(data: Dataset) -> list[bytes]:
    """The ids of every batch, each asked for by its number."""
    return [data.shard_batch(*place).tokens.tobytes() for place in places(data)]


@lru_cache(maxsize=2)
def stored(root: Path) -> list[bytes]:
    """The same from the shards, past the cache."""
    return [batch.tokens.tobytes() for _, _, batch in Dataset(root).batches()]


def files(folder: Path, kind: str = "batches") -> list[Path]:
    """The files of a cache."""
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def units(folder: Path) -> int:
    """Bytes that the batches in a cache take, in whole units each."""
    return sum(-(-path.stat().st_size // UNIT) * UNIT for path in files(folder))


def in_memory(root: Path, name: str) -> Dataset:
    """The dataset in a store that is not this disk."""
    fsspec.filesystem("memory").put(str(root), f"/{name}", recursive=True)
    return Dataset(f"memory://{name}")


def in_child(act: Callable[[], Any]) -> int:
    """Runs `act` in a forked process; its exit status as `os.waitpid` gives it."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]
