"""A dataset in a local folder: files are finished under another name, synced, then renamed or linked."""

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toto.errors import naming
from toto.files import sync
from toto.shards.store.names import SCRATCH, inside


class LocalStore:
    """A dataset in a local folder; `create` is `os.link` of a finished temporary file."""

    report_every_s = 1.0  # how often a run may write its progress here

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uri = str(root)

    def __reduce__(self) -> tuple[Any, ...]:
        return LocalStore, (self.root,)

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there."""
        return self._path(name).read_bytes()

    def read_all(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """The bytes of many small files; FileNotFoundError when one is not there."""
        return tuple(map(self.read, names))

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
        with self._finished(data) as path:
            self.publish(path, name)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file only if the name is free; False when somebody else was first."""
        target = self._path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._finished(data) as path:
            sync(path)
            try:
                os.link(path, target)
            except FileExistsError:
                return False
        sync(target.parent)
        return True

    def create_twice(self, name: str) -> tuple[bool, bool]:
        """What `is_exclusive` asks: whether each of two creations of one name went through."""
        return self.create(name, b"first"), self.create(name, b"second")

    def version(self, name: str) -> str | None:
        """For `replace`; here a lock keeps others away."""
        return None

    def replace(self, name: str, data: bytes, version: str | None) -> bool:
        """Writes a whole file where it is still of this version; False when somebody replaced it."""
        self.write(name, data)
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

    def abort_uploads(self, older_than_s: float) -> tuple[str, ...]:
        """Nothing: unfinished files lie in tmp/ here."""
        return ()

    def _path(self, name: str) -> Path:
        return self.root / inside(name)

    @contextmanager
    def _finished(self, data: bytes) -> Iterator[Path]:
        """A scratch file with these bytes; removed at the end unless it was moved away."""
        path = self.scratch()
        try:
            with naming(path.parent):
                path.write_bytes(data)
            yield path
        finally:
            path.unlink(missing_ok=True)
