"""Where a dataset lives: a folder, or a bucket prefix through fsspec. Files appear whole or not at all.

Everything that decides something is created exclusively (`create`): of two writers, one wins. Locally that is
`os.link` of a finished temporary file; on an object store a put that fails when the name is taken.
"""

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from toto.errors import UserError, naming
from toto.files import sync

SCRATCH = "tmp"  # beside shards/: unfinished files, safe to remove when no run is going on


class LocalStore:
    """A dataset in a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.uri,)

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there."""
        return self._path(name).read_bytes()

    def local_path(self, name: str) -> Path:
        """A path that can be mapped into memory."""
        return self._path(name)

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        return self._path(name).is_file()

    def size(self, name: str) -> int:
        """Bytes; FileNotFoundError when it is not there."""
        return self._path(name).stat().st_size

    def sha256(self, name: str) -> str:
        """Hex sha256 of the bytes that are there now."""
        with open(self._path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def age_s(self, name: str) -> float:
        """Seconds since it was last written."""
        return time.time() - self._path(name).stat().st_mtime

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in a folder (`folder/name`), sorted; none when it is not there."""
        try:
            with os.scandir(self._path(folder)) as entries:
                return sorted(f"{folder}/{entry.name}" for entry in entries if entry.is_file())
        except FileNotFoundError:
            return []

    def scratch(self) -> Path:
        """A fresh name for an unfinished file, on the same file system as the dataset."""
        folder = self.root / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def publish(self, finished: Path, name: str) -> None:
        """Moves a finished scratch file to its name, durably; replaces what is there."""
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        sync(finished)
        os.replace(finished, target)
        sync(target.parent)

    def write(self, name: str, data: bytes) -> None:
        """Writes a whole file atomically; replaces what is there."""
        with _finished_file(self, data) as path:
            self.publish(path, name)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file only if the name is free; False when somebody else was first."""
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _finished_file(self, data) as path:
            sync(path)
            try:
                os.link(path, target)
            except FileExistsError:
                return False
        sync(target.parent)
        return True

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Held by one process of this machine at a time; given back by the system when the process dies."""
        folder = self.root / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{name}.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens when it is not there."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.root / inside(name)


class RemoteStore:
    """A dataset under an fsspec URI; `create` needs a store with conditional puts."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self.fs, self._prefix = url_to_fs(self.uri)

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.uri,)

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there."""
        return self.fs.cat_file(self._path(name))

    def local_path(self, name: str) -> Path:
        """A local copy in the user's cache, fetched once; names hold their content's hash, so it never goes stale."""
        key = fsspec.utils.tokenize(self.uri, name)
        target = _cache() / key / Path(name).name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
            self.fs.get_file(self._path(name), str(part))
            os.replace(part, target)
        return target

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        return self.fs.isfile(self._path(name))

    def size(self, name: str) -> int:
        """Bytes; FileNotFoundError when it is not there."""
        return int(self.fs.size(self._path(name)))

    def sha256(self, name: str) -> str:
        """Hex sha256 of the bytes that are there now; read from the store, never from the local copy."""
        with self.fs.open(self._path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def age_s(self, name: str) -> float:
        """Seconds since it was last written."""
        return time.time() - self.fs.modified(self._path(name)).timestamp()

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in a folder (`folder/name`), sorted; none when it is not there."""
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{Path(entry['name']).name}" for entry in found if entry["type"] == "file")

    def scratch(self) -> Path:
        """A fresh local name for an unfinished file."""
        folder = _cache() / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def publish(self, finished: Path, name: str) -> None:
        """Uploads a finished scratch file in one put and removes it."""
        self.fs.put_file(str(finished), self._path(name))
        finished.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Writes a whole file in one put; replaces what is there."""
        self.fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file only if the name is free; False when somebody else was first."""
        try:
            self.fs.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Buckets have no locks: nothing is held, and what happens under it must stand a second writer."""
        yield

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens when it is not there."""
        if self.exists(name):
            self.fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{inside(name)}"


Store = LocalStore | RemoteStore


def inside(name: str) -> str:
    """The name, when it stays inside the dataset; a damaged or hostile file may name others: UserError."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise UserError(f"{name!r} is no name of a file in a dataset; a file of this dataset was changed")
    return name


def open_store(uri: str | Path) -> Store:
    """The store behind a path or an fsspec URI; nothing is read or written yet."""
    text = str(uri)
    if "://" not in text:
        return LocalStore(Path(text).expanduser().absolute())
    if text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")).absolute())
    try:
        return RemoteStore(text)
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot open {text}: {error}") from None


def prove_exclusive(store: Store) -> None:
    """Raises UserError unless creating one name twice fails the second time, on which commits stand."""
    name = f"{SCRATCH}/probe-{uuid.uuid4().hex[:12]}"
    try:
        first, second = store.create(name, b"probe"), store.create(name, b"probe")
        store.remove(name)
    except OSError:
        raise
    except Exception as error:  # an object store's own: no credentials, no such bucket, no conditional puts
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"cannot write to {store.uri} ({type(error).__name__}: {reason}); choose another --out"
        ) from None
    if not first or second:
        raise UserError(f"{store.uri} lets two writers create the same file; choose a store with conditional writes")


@contextmanager
def _finished_file(store: LocalStore, data: bytes) -> Iterator[Path]:
    """A scratch file with these bytes; removed at the end unless it was moved away."""
    path = store.scratch()
    try:
        with naming(path.parent):
            path.write_bytes(data)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "toto"
