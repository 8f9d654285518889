"""Inflated batches on the local disk: mapped, not read, and shared by all processes through the page cache.

    verified batch ─▶ file (mapped.py) ─▶ tmp/ ─▶ batches/<shard>/<number>.arrow ─▶ mapped, checked, NumPy views
    checked table ─▶ file ─▶ tmp/ ─▶ tables/<key>/0.arrow ─▶ mapped, checked: a manifest is parsed once on a machine

<shard> is made of where the dataset lies, the shard's sha256 and its tokenizer's id: a changed shard finds nothing, and
a stranger's dataset that claims the hashes of another one cannot put its rows in that one's place. A file ends with the
xxh3-64 of the rest of it: one that is not as it was written is removed, and its batch read anew. A mapped batch stays
valid when its file is removed. The cache is no part of the format, and no error of it ends a run: without it batches
stay in memory.
"""

import errno
import hashlib
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from toto.shards.batch import Batch
from toto.shards.cache.mapped import LAYOUT, MappedBatch, MappedFile, file_of, file_of_table, map_file, table_in
from toto.shards.cache.space import FULL, Space, asked_limit, cache_home

OFF_S = 60.0  # how long a disk that refused is left alone
MOST_TABLE_BYTES = 64 << 20  # of a table that is kept: it is written as a whole
KNOWN_FILES = 1 << 16  # that a process has checked: 300 bytes each
_checked: dict[str, tuple[int, int, int]] = {}  # path -> inode, size, time of its last use in ns


class CacheWarning(UserWarning):
    """Batches are kept in memory instead of on disk; nothing else changes."""


class Cache:
    """The batches of one cache folder."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._folder = str(space.folder)
        self._off_until = 0.0
        self.name = self._folder, space.asked  # the same for the same files and limit

    @property
    def is_off(self) -> bool:
        """Whether nothing is to be kept on disk."""
        return self._space.is_off

    def find(self, shard: str, batch: int) -> MappedFile | None:
        """The file of a batch of a shard by `shard_key`, for `get`, mapped; None where it is not there."""
        return None if self._space.is_off else _found(self._path(shard, batch))

    def get(self, shard: str, batch: int, found: MappedFile | None = None) -> Batch | None:
        """A batch of a shard, mapped; None where it is not there, or was damaged. `found` is what `find` gave."""
        found = self.find(shard, batch) if found is None else found
        return None if found is None else _batch_in(found)

    def put(self, shard: str, batch: int, verified: Batch) -> Batch:
        """Stores a verified batch; the same, mapped, or as it was given where it cannot be stored."""
        if self._space.is_off or time.monotonic() < self._off_until:
            return verified
        data, path = file_of(verified), self._path(shard, batch)
        try:
            found = _found(path) if self._write(path, data) else None
        except OSError as error:
            self._off_until = time.monotonic() + OFF_S
            _say(f"{self._space.folder}: {error.strerror or error}")
            return verified
        return (_batch_in(found) if found else None) or verified

    def table(self, key: str, make: Callable[[], pa.Table]) -> pa.Table:
        """A table by its key, mapped; else the one that `make` gives, which is stored where that can be done."""
        path = f"{self._folder}/tables/{key}/0.arrow"
        found = None if self._space.is_off else _found(path)
        if found is not None and found.is_whole:
            return table_in(found)
        table = make()
        if not self._space.is_off and table.get_total_buffer_size() <= MOST_TABLE_BYTES:
            with suppress(OSError):
                self._write(path, file_of_table(table))
        return table

    def _path(self, shard: str, batch: int) -> str:
        return f"{self._folder}/batches/{shard}/{batch}.arrow"

    def _write(self, path: str, data: bytes) -> bool:
        """Whether there was room; OSError of the disk, where making room does not help."""
        try:
            return self._space.take(len(data)) and self._place(path, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._space.halve()
            return self._space.take(len(data)) and self._place(path, data)

    def _place(self, path: str, data: bytes) -> bool:
        part = self._space.scratch()
        try:
            with open(part, "xb") as file:
                file.write(data)
            _rename(part, path)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return True


def shard_key(place: str, sha256: str | None, tokenizer_id: str) -> str:
    """The name under which the batches of a shard are kept: 64 hex digits, whatever a stranger's manifest says."""
    named = "\0".join((LAYOUT, place, str(sha256), tokenizer_id))
    return hashlib.sha256(named.encode(errors="surrogateescape")).hexdigest()


def table_key(*parts: object) -> str:
    """The name under which a table is kept that follows from these parts alone: 64 hex digits."""
    return hashlib.sha256(repr((LAYOUT, *parts)).encode(errors="surrogateescape")).hexdigest()


def open_cache(limit: int | None = None) -> Cache:
    """The cache of this process's environment; `limit` in bytes goes before TOTO_CACHE_BYTES. UsageError."""
    return _opened(cache_home(), asked_limit() if limit is None else limit)


@lru_cache(maxsize=8)
def _opened(folder: Path, limit: int | None) -> Cache:
    return Cache(Space(folder, limit))


def _found(path: str) -> MappedFile | None:
    """A file of the cache; None where it is not there, was removed at this moment to make room, or cannot be opened:
    it stays for others, as this process may only have too many files open."""
    try:
        return map_file(path)
    except OSError:
        return None


def _batch_in(found: MappedFile) -> Batch | None:
    """The batch in a file, when it is as it was written; else the file is removed. A file that this process has checked
    is not checked again while its inode, size and time stay as they were."""
    path = found.path
    try:
        if _checked.get(path) == found.before or found.is_whole:
            batch = MappedBatch(found.data)
            if len(_checked) >= KNOWN_FILES:
                _checked.clear()
            _checked[path] = found.after
            return batch
    except ValueError:  # its facts lead out of it
        pass
    with suppress(OSError):
        os.unlink(path)
    return None


def _rename(part: Path, path: str) -> None:
    """Moves a finished file; its folder may be removed, being empty, at any moment."""
    for _ in range(3):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(part, path)
            return
        if not part.exists():
            break
    raise FileNotFoundError(errno.ENOENT, "the folder is being emptied", path)


@lru_cache(maxsize=64)
def _say(why: str) -> None:
    """Once in each process, in one line."""
    text = f"no cache of inflated batches ({why}): they are kept in memory; TOTO_CACHE names another folder"
    warnings.warn_explicit(text, CacheWarning, "toto", 0)
