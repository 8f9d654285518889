"""The bytes of one shard, by ranges: of a local file, or of one that stays in its store.

remote: the last 32 KiB, in which the footer is, with the first 8 bytes, in one go; then batch by batch
a store that sends whole files only: a local copy, fetched once
"""

import errno
import os
import stat
from pathlib import Path
from typing import Protocol

from toto.errors import naming
from toto.shards.snapshot import DATASET
from toto.shards.store import RemoteStore, Store

TAIL_BYTES = 32 << 10  # footer of a shard of 1,000 batches
HEAD_BYTES = 8  # Arrow's magic


class ShardFile(Protocol):
    """Bytes by place; may be read by several threads, also of a forked process."""

    size: int

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes; ValueError where the file ends before, UserError where its store does not give them."""
        ...

    def close(self) -> None:
        """Gives it back; closed files are not read."""
        ...


class LocalFile:
    """A shard on this machine's disk; OSError names it, FileNotFoundError also where it is not a regular file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is not waited for
        state = os.fstat(self._handle)
        if not stat.S_ISREG(state.st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
        self.size = state.st_size

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes; ValueError where the file ends before."""
        with naming(self._path):
            data = os.pread(self._handle, length, start)
            while 0 < len(data) < length:  # Linux gives 2 GiB at a time
                more = os.pread(self._handle, length - len(data), start + len(data))
                if not more:
                    break
                data += more
        if len(data) != length:
            raise ValueError(f"the file ends within bytes {start:,} … {start + length:,}")
        return data

    def close(self) -> None:
        """Closes the file."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self.close()


class RemoteFile:
    """A shard in its store; `size` is what the manifest says."""

    def __init__(self, store: RemoteStore, name: str, size: int) -> None:
        self._store, self._name, self.size = store, name, size
        self._tail_start = max(0, size - TAIL_BYTES)
        head = [(0, HEAD_BYTES)] if self._tail_start else []
        *heads, self._tail = store.read_ranges(name, [*head, (self._tail_start, size - self._tail_start)])
        self._head = heads[0] if heads else b""

    def read(self, start: int, length: int) -> bytes:
        """Exactly these bytes; what was read at first is not asked for again."""
        if not 0 <= start <= start + length <= self.size:
            raise ValueError(f"the file ends within bytes {start:,} … {start + length:,}")
        if start >= self._tail_start:
            return self._tail[start - self._tail_start :][:length]
        if start + length <= len(self._head):
            return self._head[start:][:length]
        (data,) = self._store.read_ranges(self._name, [(start, length)])
        return data

    def close(self) -> None:
        """Nothing is held."""


def open_shard_file(store: Store, name: str, size: int) -> ShardFile:
    """The shard of this name; FileNotFoundError when it is not there, UserError where the store refuses."""
    if isinstance(store, RemoteStore) and store.gives_ranges(DATASET):
        return RemoteFile(store, name, size)
    return LocalFile(store.local_path(name))
