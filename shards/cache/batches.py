"""Inflated batches on the local disk: mapped, not read, and shared by all processes through the page cache.

    verified batch ─▶ uncompressed Arrow stream ─▶ tmp/ ─▶ batches/<shard>/<number>.arrow
                                                             └─▶ mapped, checked, NumPy views without a copy

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
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import xxhash

from toto.shards.cache.space import FULL, Space, asked_limit, cache_home, touch

DIGEST = 8  # bytes of an xxh3-64
OFF_S = 60.0  # how long a disk that refused is left alone


class CacheWarning(UserWarning):
    """Batches are kept in memory instead of on disk; nothing else changes."""


class Cache:
    """The batches of one cache folder."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._folder = space.folder / "batches"
        self._off_until = 0.0

    def get(self, shard: str, batch: int) -> pa.RecordBatch | None:
        """A batch of a shard by `shard_key`, mapped; None where it is not there, or was damaged."""
        return None if self._space.is_off else _mapped(self._path(shard, batch))

    def put(self, shard: str, batch: int, arrow: pa.RecordBatch) -> pa.RecordBatch:
        """Stores a verified batch; the same, mapped, or as it was given where it cannot be stored."""
        if self._space.is_off or time.monotonic() < self._off_until:
            return arrow
        data, path = _inflated(arrow), self._path(shard, batch)
        try:
            found = _mapped(path) if self._write(path, data) else None
        except OSError as error:
            self._off_until = time.monotonic() + OFF_S
            _say(f"{self._space.folder}: {error.strerror or error}")
            return arrow
        return arrow if found is None else found

    def _path(self, shard: str, batch: int) -> str:
        return f"{self._folder}/{shard}/{batch}.arrow"

    def _write(self, path: str, data: pa.Buffer) -> bool:
        """Whether there was room; OSError of the disk, where making room does not help."""
        try:
            return self._space.take(data.size + DIGEST) and self._place(path, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._space.halve()
            return self._space.take(data.size + DIGEST) and self._place(path, data)

    def _place(self, path: str, data: pa.Buffer) -> bool:
        part = self._space.scratch()
        try:
            with open(part, "xb") as file:
                file.write(data)
                file.write(xxhash.xxh3_64_digest(data))
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


def _mapped(path: str) -> pa.RecordBatch | None:
    """The batch in a file of the cache, when the file is as it was written; else the file is removed."""
    try:
        with pa.memory_map(path) as file:
            data = file.read_buffer()
        inside = data[:-DIGEST]
        if data[-DIGEST:].to_pybytes() == xxhash.xxh3_64_digest(inside):
            touch(path)
            return _batch(inside)
    except FileNotFoundError:  # not there, or removed at this moment to make room
        return None
    except (OSError, pa.ArrowException, EOFError):
        pass
    with suppress(OSError):
        os.unlink(path)
    return None


def _batch(stream: pa.Buffer) -> pa.RecordBatch:
    """The one batch of a stream; its schema is the same in all of a shard, and parsed once."""
    reader = pa.BufferReader(stream)
    schema = pa.ipc.read_message(reader).metadata.to_pybytes()
    return pa.ipc.read_record_batch(pa.ipc.read_message(reader), _schema(schema))


@lru_cache(maxsize=64)
def _schema(message: bytes) -> pa.Schema:
    prefix = b"\xff\xff\xff\xff" + len(message).to_bytes(4, "little")
    return pa.ipc.read_schema(pa.py_buffer(prefix + message))


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
