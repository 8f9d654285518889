"""The files of a folder that somebody else made: on this machine, or under an fsspec URI. They may be hostile.

    here     mapped into memory
    remote   up to 4 MiB: read into memory, some ahead; larger: into a file of this machine that has no name, one at a
             time; raw frames: the parts that are asked for (ranged.py)

Nothing is unpacked first: a remote folder takes as much memory and disk as the file that is being read.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from toto.errors import UsageError, UserError
from toto.files import cache_folder
from toto.shards.cache.background import ahead
from toto.shards.rewrite.npy import BadFile, mapped, npy_in, read_npy, told_bytes
from toto.shards.rewrite.ranged import Ranged
from toto.shards.store import SCRATCH, LocalStore, RemoteStore, open_store

T = TypeVar("T")
IN_MEMORY = 4 << 20  # bytes of a remote file
AHEAD = 16  # of such files


class Entry(NamedTuple):
    """A file of the folder."""

    key: str  # below the folder that was listed, with /
    size: int
    changed: int | str  # another one when the file was written anew


class Files(Protocol):
    """What an import needs of a folder. It is pickled for other processes."""

    uri: str

    def entries(self, below: str = "") -> Iterator[Entry]:
        """Every file below a folder of it, sorted, but hidden ones."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a file, None where there is none; UserError where they are more than `most`."""
        ...

    def array(self, name: str, size: int | None = None) -> np.ndarray:
        """The numbers of an .npy file; BadFile, also where it has another `size` than was told."""
        ...

    def frames(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> "np.ndarray | Ranged":
        """Raw numbers of this dtype and shape; a slice of them is read when it is asked for. BadFile."""
        ...

    def ahead(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """What the jobs give, in order; some are begun before they are wanted where that saves time."""
        ...

    def is_small(self, size: int) -> bool:
        """Whether files of so many bytes may be read ahead."""
        ...


class LocalFiles:
    """A folder of this machine. Links that lead out of it are not followed."""

    def __init__(self, root: Path) -> None:
        self.root, self.uri = root, str(root)

    def entries(self, below: str = "") -> Iterator[Entry]:
        """Every file below a folder of it, sorted, but hidden ones; folders that are links are not entered."""
        top = self.root / below
        for parent, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if not name.startswith("."):
                    path = Path(parent, name)
                    yield Entry(path.relative_to(top).as_posix(), *_size_and_time(path))

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.root / name).is_file()

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a file, None where there is none."""
        path = self.root / name
        if not path.is_file():
            return None
        _refuse_long(f"{self.uri}/{name}", path.stat().st_size, most)
        return path.read_bytes()

    def array(self, name: str, size: int | None = None) -> np.ndarray:
        """The numbers of an .npy file, mapped."""
        numbers = read_npy(self.root / name, self.root)
        _refuse_changed(_size_and_time(self.root / name)[0], size)
        return numbers

    def frames(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Raw numbers, mapped."""
        return mapped(self.root / name, dtype, shape)

    def ahead(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """One job after the other: mapping takes no time."""
        return (job() for job in jobs)

    def is_small(self, size: int) -> bool:
        """Never: what is mapped need not be read ahead."""
        return False


class RemoteFiles:
    """A folder under an fsspec URI."""

    def __init__(self, store: RemoteStore) -> None:
        self._store, self.uri = store, store.uri

    def entries(self, below: str = "") -> Iterator[Entry]:
        """Every file below a folder of it, sorted, but those with a hidden part in their name, `..` among them."""
        top = f"{below.strip('/')}/" if below.strip("/") else ""
        for name, size, version in self._store.tree(below.strip("/")):
            key = name.removeprefix(top)
            if not any(part.startswith(".") for part in key.split("/")):
                yield Entry(key, size, version)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._store.exists(name)

    def read(self, name: str, most: int) -> bytes | None:
        """The bytes of a file, None where there is none."""
        if not self._store.exists(name):
            return None
        _refuse_long(f"{self.uri}/{name}", self._store.size(name), most)
        return self._store.read(name)

    def array(self, name: str, size: int | None = None) -> np.ndarray:
        """The numbers of an .npy file: in memory, or mapped from a copy that goes with the array."""
        try:
            if (self._store.size(name) if size is None else size) <= IN_MEMORY:
                data = self._store.read(name)
                _refuse_changed(len(data), size)
                return npy_in(BytesIO(data), len(data))
            return self._copied(name, size)
        except FileNotFoundError:
            raise BadFile("missing", "it is not there any more") from None

    def frames(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> Ranged:
        """Raw numbers of which parts are fetched; UserError where the server gives no parts of files."""
        try:
            told_bytes(name, self._store.size(name), dtype, shape)
        except FileNotFoundError:
            raise BadFile("missing", f"{name} is not there") from None
        if not self._store.gives_ranges(name):
            raise UserError(f"{self.uri}: this server gives no parts of files; copy {name} to this machine first")
        return Ranged(self._store, name, dtype, shape)

    def ahead(self, jobs: Iterable[Callable[[], T]]) -> Iterator[T]:
        """Several jobs at a time, in the background."""
        return ahead(jobs, AHEAD)

    def is_small(self, size: int) -> bool:
        """Whether it is read into memory."""
        return size <= IN_MEMORY

    def _copied(self, name: str, size: int | None) -> np.ndarray:
        folder = cache_folder() / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:  # mapped, it stays until the array goes
            self._store.copy_into(name, file)
            there = file.seek(0, os.SEEK_END)
            _refuse_changed(there, size)
            file.seek(0)
            return npy_in(file, there)


def open_files(folder: str) -> Files:
    """The files of a folder, or of an fsspec URI; UsageError where it is no folder."""
    store = open_store(folder)
    if isinstance(store, RemoteStore):
        return RemoteFiles(store)
    assert isinstance(store, LocalStore)
    if not store.root.is_dir():
        raise UsageError(f"{folder} is not a folder; name one of this machine, or an fsspec URI such as s3://…")
    return LocalFiles(store.root if "://" in folder else Path(folder).expanduser())


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and ns of the last change; zeros of a link that leads nowhere."""
    try:
        told = path.stat()
    except OSError:
        return 0, 0
    return told.st_size, told.st_mtime_ns


def _refuse_long(where: str, size: int, most: int) -> None:
    if size > most:
        raise UserError(f"{where} has {size:,} bytes; at most {most:,} are read")


def _refuse_changed(size: int, told: Any) -> None:
    if told is not None and size != told:
        raise BadFile("changed", f"it had {told:,} bytes when it was planned")
