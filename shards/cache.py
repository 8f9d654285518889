"""Inflated batches on the local disk: mapped, not read, and shared by all processes through the page cache.

    verified batch ─▶ uncompressed Arrow stream ─▶ tmp/ ─▶ batches/<shard>/<number>-<xxh3>.arrow
                                                             └─▶ mapped, checked, NumPy views without a copy

<shard> is made of where the dataset lies, the shard's sha256 and its tokenizer's id: a changed shard finds nothing, and
a stranger's dataset that claims the hashes of another one cannot put its rows in that one's place. The xxh3 is that of
the file: one that is not what its name says is removed, and its batch read anew. A mapped batch stays valid when its
file is removed. The cache is no part of the format, and no error of it ends a run: without it batches stay in memory.
"""

import errno
import hashlib
import os
import time
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import xxhash

from toto.shards.cache_space import FULL, Space, asked_limit, cache_home, touch

OFF_S = 60.0  # how long a disk that refused is left alone


class CacheWarning(UserWarning):
    """Batches are kept in memory instead of on disk; nothing else changes."""


class Cache:
    """The batches of one cache folder."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._off_until = 0.0

    def get(self, shard: str, batch: int) -> pa.RecordBatch | None:
        """A batch of a shard by `shard_key`, mapped; None where it is not there, or was damaged."""
        folder = self._folder(shard)
        try:
            names = os.listdir(folder) if folder else []
        except OSError:
            return None
        start = f"{batch}-"
        for name in names:
            if name.startswith(start):
                found = _mapped(Path(f"{folder}/{name}"))
                if found is not None:
                    return found
        return None

    def put(self, shard: str, batch: int, arrow: pa.RecordBatch) -> pa.RecordBatch:
        """Stores a verified batch; the same, mapped, or as it was given where it cannot be stored."""
        folder = self._folder(shard)
        if folder is None or time.monotonic() < self._off_until:
            return arrow
        data = _inflated(arrow)
        path = folder / f"{batch}-{xxhash.xxh3_64_hexdigest(data)}.arrow"
        try:
            found = _mapped(path) if self._write(path, data) else None
        except OSError as error:
            self._off_until = time.monotonic() + OFF_S
            _say(f"{self._space.folder}: {error.strerror or error}")
            return arrow
        return arrow if found is None else found

    def _folder(self, shard: str) -> Path | None:
        """Where the batches of a shard lie; None where nothing is to be stored."""
        if self._space.is_off:
            return None
        return self._space.folder / "batches" / shard

    def _write(self, path: Path, data: pa.Buffer) -> bool:
        """Whether there was room; OSError of the disk, where making room does not help."""
        try:
            return self._space.take(data.size) and self._place(path, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._space.halve()
            return self._space.take(data.size) and self._place(path, data)

    def _place(self, path: Path, data: pa.Buffer) -> bool:
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
    return hashlib.sha256(f"{place}\0{sha256}\0{tokenizer_id}".encode(errors="surrogateescape")).hexdigest()


def open_cache(limit: int | None = None) -> Cache:
    """The cache of this process's environment; `limit` in bytes goes before TOTO_CACHE_BYTES. UsageError."""
    return _opened(cache_home(), asked_limit() if limit is None else limit)


@lru_cache(maxsize=8)
def _opened(folder: Path, limit: int | None) -> Cache:
    return Cache(Space(folder, limit))


def _inflated(arrow: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    schema = arrow.schema.remove_metadata()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(arrow.replace_schema_metadata(None))
    return sink.getvalue()


def _mapped(path: Path) -> pa.RecordBatch | None:
    """The batch in a file of the cache, when the file is what its name says; else the file is removed."""
    try:
        with pa.memory_map(str(path)) as file:
            data = file.read_buffer()
        if xxhash.xxh3_64_hexdigest(data) == path.stem.rpartition("-")[2]:
            touch(path)
            return pa.ipc.open_stream(data).read_next_batch()
    except FileNotFoundError:  # removed at this moment, to make room
        return None
    except (OSError, pa.ArrowException, StopIteration):
        pass
    with suppress(OSError):
        path.unlink()
    return None


def _rename(part: Path, path: Path) -> None:
    """Moves a finished file; its folder may be removed, being empty, at any moment."""
    for _ in range(3):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(part, path)
            return
        if not part.exists():
            break
    raise FileNotFoundError(errno.ENOENT, "the folder is being emptied", str(path))


@lru_cache(maxsize=64)
def _say(why: str) -> None:
    """Once in each process, in one line."""
    text = f"no cache of inflated batches ({why}): they are kept in memory; TOTO_CACHE names another folder"
    warnings.warn_explicit(text, CacheWarning, "toto", 0)
