"""Reading under an fsspec URI: whole files, parts of them, local copies, listings.

Every answer may break off, so each is asked for again until it is whole, or the store refuses it.
"""

import hashlib
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from toto.shards.store.connection import Connection
from toto.shards.store.copies import copy_path, fetched, is_whole

CHUNK = 1 << 20
VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")
REQUESTS = 16  # at a time, where many small files are read


class RemoteReads(Connection):
    """What a dataset's readers ask of it. UserError where the store refuses or stays away."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._whole: set[str] = set()  # local copies that this process has checked
        self._gives_ranges: bool | None = None  # not known yet

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there."""
        path = self.path(name)
        return self.patiently(name, lambda: self.fs.cat_file(path, **self.at_once))

    def read_all(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """The bytes of many small files, asked for together; FileNotFoundError when one is not there."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            return tuple(pool.map(self.read, names))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of a file, each (start, length), asked for together. A part that arrives short is asked for again.

        FileNotFoundError when it is not there, UserError where it ends before.
        """
        path = self.path(name)
        starts, ends = [start for start, _ in ranges], [start + length for start, length in ranges]

        def get() -> list[bytes]:
            parts = self.fs.cat_ranges([path] * len(ranges), starts, ends, on_error="raise", **self.exactly)
            for part, (start, length) in zip(parts, ranges, strict=True):
                if len(part) > length:
                    raise ValueError(f"{len(part):,} bytes arrived where {length:,} were asked for")
                if len(part) < length:
                    size = self.fs.info(path).get("size")
                    if size is not None and size < start + length:
                        raise ValueError(f"the file has {size:,} bytes, too few for {start:,} … {start + length:,}")
                    raise ConnectionError(f"{len(part):,} of {length:,} bytes arrived")
            return list(parts)

        return self.patiently(name, get)

    def gives_ranges(self, name: str) -> bool:
        """Whether the store gives parts of files; a web server is asked once, for the beginning of this small file."""
        if self._gives_ranges is None:
            path = self.path(name)
            self._gives_ranges = (
                not self.on_web or len(self.patiently(name, lambda: self.fs.cat_file(path, start=0, end=1))) == 1
            )
        return self._gives_ranges

    def local_path(self, name: str) -> Path:
        """A local copy in the user's cache, checked and fetched when needed; FileNotFoundError when there is none."""
        target = copy_path(fsspec.utils.tokenize(self.uri, name), name)
        if not (name in self._whole and target.is_file()) and not is_whole(target, name):
            fetched(target, f"{self.uri}/{name}", partial(self.download, name))
        self._whole.add(name)
        return target

    def download(self, name: str, target: Path) -> None:
        """Writes the bytes of a file to a path of this machine; FileNotFoundError when it is not there."""
        path = self.path(name)
        self.patiently(name, lambda: self.fs.get_file(path, str(target)))

    def copy_into(self, name: str, file: BinaryIO) -> None:
        """Writes the bytes of a file into an open one; FileNotFoundError when it is not there."""
        path = self.path(name)

        def copy() -> None:
            file.seek(0)
            file.truncate()
            with self.fs.open(path, "rb", **self.streamed) as source:
                shutil.copyfileobj(source, file, CHUNK)

        self.patiently(name, copy)

    def sha256(self, name: str) -> str:
        """Hex sha256 of the bytes that are there now; read from the store, never from the local copy."""
        path = self.path(name)

        def digest() -> str:
            hasher = hashlib.sha256()
            with self.fs.open(path, "rb", **self.streamed) as file:
                while block := file.read(CHUNK):
                    hasher.update(block)
            return hasher.hexdigest()

        return self.patiently(name, digest)

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        try:
            return self.facts(name)["type"] == "file"
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        """Bytes; FileNotFoundError when it is not there."""
        return int(self.facts(name)["size"])

    def age_s(self, name: str) -> float:
        """Seconds since it was last written, between the store's clock and ours."""
        path = self.path(name)
        return time.time() - self.patiently(name, lambda: self.fs.modified(path)).timestamp()

    def facts(self, name: str) -> dict[str, Any]:
        """What the store tells of a file: size, type, ETag; FileNotFoundError when it is not there."""
        path = self.path(name)
        return self.patiently(name, lambda: self.fs.info(path))

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in a folder (`folder/name`), sorted; none when it is not there."""
        path = self.path(folder)
        self.fs.invalidate_cache()
        try:
            found = self.patiently(folder, lambda: self.fs.ls(path, detail=True))
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{Path(entry['name']).name}" for entry in found if entry["type"] == "file")

    def tree(self, below: str = "") -> Sequence[tuple[str, int, str]]:
        """(name, bytes, version) of all files below a folder, sorted; none when it is not there. The version changes
        with the content: an ETag, else a time."""
        top, path = self.place(""), self.place(below)
        self.fs.invalidate_cache()
        try:
            found = self.patiently(below, lambda: self.fs.find(path, detail=True))
        except FileNotFoundError:
            return []
        entries = ((str(where).removeprefix(f"{top}/"), entry) for where, entry in found.items())
        return sorted((name, int(entry.get("size") or 0), _version(entry)) for name, entry in entries if name)


def _version(entry: dict[str, Any]) -> str:
    """What a listing tells of a file that is another when it was written anew; "" where it tells nothing."""
    return next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")
