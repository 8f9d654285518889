"""A dataset under an fsspec URI: an object is there whole or not at all, and may be asked for again and again.

A put may have happened although its reply was lost. So `create` looks at what is there before it says who was first,
and `publish` writes under names that hold the content's hash, where twice is as good as once.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.core import url_to_fs

from toto.files import cache_folder
from toto.shards.store.copies import copy_path, fetched, is_whole
from toto.shards.store.names import SCRATCH, inside
from toto.shards.store.retry import patiently

T = TypeVar("T")
CHUNK = 1 << 20
VERSIONS = ("ETag", "etag", "blob_id", "mtime", "LastModified", "last_modified", "updated", "created")
REQUESTS = 16  # at a time, where many small files are read


class RemoteStore:
    """A dataset under an fsspec URI. What passes is tried again; UserError where the store refuses or stays away."""

    report_every_s = 15.0  # how often a run may write its progress here

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._connect()
        self._whole: set[str] = set()  # local copies that this process has checked
        self._gives_ranges: bool | None = None  # not known yet

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.uri,)

    @property
    def fs(self) -> Any:
        """fsspec's file system; a forked process, as loaders of training data are, makes its own connections."""
        if self._process != os.getpid():
            self._connect()
        return self._fs

    def read(self, name: str) -> bytes:
        """The bytes of a file; FileNotFoundError when it is not there."""
        path = self._path(name)
        return self._patiently(name, lambda: self.fs.cat_file(path, **self._at_once))

    def read_all(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """The bytes of many small files, asked for together; FileNotFoundError when one is not there."""
        with ThreadPoolExecutor(REQUESTS) as pool:
            return tuple(pool.map(self.read, names))

    def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Parts of a file, each (start, length), asked for together. A part that arrives short is asked for again.

        FileNotFoundError when it is not there, UserError where it ends before.
        """
        path = self._path(name)
        starts, ends = [start for start, _ in ranges], [start + length for start, length in ranges]

        def get() -> list[bytes]:
            parts = self.fs.cat_ranges([path] * len(ranges), starts, ends, on_error="raise", **self._exactly)
            for part, (start, length) in zip(parts, ranges, strict=True):
                if len(part) > length:
                    raise ValueError(f"{len(part):,} bytes arrived where {length:,} were asked for")
                if len(part) < length:
                    size = self.fs.info(path).get("size")
                    if size is not None and size < start + length:
                        raise ValueError(f"the file has {size:,} bytes, too few for {start:,} … {start + length:,}")
                    raise ConnectionError(f"{len(part):,} of {length:,} bytes arrived")
            return list(parts)

        return self._patiently(name, get)

    def gives_ranges(self, name: str) -> bool:
        """Whether the store gives parts of files; a web server is asked once, for the beginning of this small file."""
        if self._gives_ranges is None:
            path = self._path(name)
            self._gives_ranges = (
                not self._on_web or len(self._patiently(name, lambda: self.fs.cat_file(path, start=0, end=1))) == 1
            )
        return self._gives_ranges

    def local_path(self, name: str) -> Path:
        """A local copy in the user's cache, checked and fetched when needed; FileNotFoundError when there is none."""
        target = copy_path(fsspec.utils.tokenize(self.uri, name), name)
        if not (name in self._whole and target.is_file()) and not is_whole(target, name):
            fetched(
                target,
                f"{self.uri}/{name}",
                partial(self.download, name),
            )
        self._whole.add(name)
        return target

    def download(self, name: str, target: Path) -> None:
        """Writes the bytes of a file to a path of this machine; FileNotFoundError when it is not there."""
        path = self._path(name)
        self._patiently(name, lambda: self.fs.get_file(path, str(target)))

    def exists(self, name: str) -> bool:
        """Whether a file of this name is there."""
        try:
            return self._info(name)["type"] == "file"
        except FileNotFoundError:
            return False

    def size(self, name: str) -> int:
        """Bytes; FileNotFoundError when it is not there."""
        return int(self._info(name)["size"])

    def sha256(self, name: str) -> str:
        """Hex sha256 of the bytes that are there now; read from the store, never from the local copy."""
        path = self._path(name)

        def digest() -> str:
            hasher = hashlib.sha256()
            with self.fs.open(path, "rb", **self._streamed) as file:
                while block := file.read(CHUNK):
                    hasher.update(block)
            return hasher.hexdigest()

        return self._patiently(name, digest)

    def age_s(self, name: str) -> float:
        """Seconds since it was last written, between the store's clock and ours."""
        path = self._path(name)
        return time.time() - self._patiently(name, lambda: self.fs.modified(path)).timestamp()

    def list(self, folder: str) -> list[str]:
        """Names of the files directly in a folder (`folder/name`), sorted; none when it is not there."""
        path = self._path(folder)
        self.fs.invalidate_cache()
        try:
            found = self._patiently(folder, lambda: self.fs.ls(path, detail=True))
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{Path(entry['name']).name}" for entry in found if entry["type"] == "file")

    def tree(self, below: str = "") -> Sequence[tuple[str, int, str]]:
        """(name, bytes, version) of all files below a folder, sorted; none when it is not there. The version changes
        with the content: an ETag, else a time."""
        top, path = self.place(""), self.place(below)
        self.fs.invalidate_cache()
        try:
            found = self._patiently(below, lambda: self.fs.find(path, detail=True))
        except FileNotFoundError:
            return []
        entries = ((str(where).removeprefix(f"{top}/"), entry) for where, entry in found.items())
        return sorted((name, int(entry.get("size") or 0), _version(entry)) for name, entry in entries if name)

    def place(self, name: str) -> str:
        """What fsspec's file system calls a file, or all of it where `name` is empty."""
        return self._path(name) if name else self._prefix

    def copy_into(self, name: str, file: BinaryIO) -> None:
        """Writes the bytes of a file into an open one; FileNotFoundError when it is not there."""
        path = self._path(name)

        def copy() -> None:
            file.seek(0)
            file.truncate()
            with self.fs.open(path, "rb", **self._streamed) as source:
                shutil.copyfileobj(source, file, CHUNK)

        self._patiently(name, copy)

    def scratch(self) -> Path:
        """A fresh local name for an unfinished file."""
        folder = cache_folder() / SCRATCH
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def publish(self, finished: Path, name: str) -> None:
        """Uploads a finished scratch file and removes it."""
        self.upload(finished, name)
        finished.unlink()

    def upload(self, finished: Path, name: str) -> None:
        """Uploads a finished file, in parts where it is large; there whole or not at all."""
        path = self._path(name)

        def put() -> None:
            try:
                self.fs.put_file(str(finished), path)
            except FileNotFoundError as error:
                if "upload" not in str(error):
                    raise
                raise ConnectionError("an upload in parts is gone; it had ended, and the reply was lost") from None

        self._patiently(name, put)

    def write(self, name: str, data: bytes) -> None:
        """Writes a whole file in one put; replaces what is there."""
        path = self._path(name)
        self._patiently(name, lambda: self.fs.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file only if the name is free; False when somebody else was first.

        Of two who write the same bytes at the same moment, both may be told True.
        """
        if self.exists(name):
            return False
        try:
            self._put_new(name, data)
        except FileExistsError:  # by somebody else, or by an earlier try of ours whose reply was lost
            return self.read(name) == data
        return True

    def create_twice(self, name: str) -> tuple[bool, bool]:
        """What `is_exclusive` asks: whether each of two conditional puts of one name went through."""

        def put(data: bytes) -> bool:
            try:
                self._put_new(name, data)
            except FileExistsError:
                return self.read(name) == data
            return True

        return put(b"first"), put(b"second")

    def version(self, name: str) -> str | None:
        """What `replace` compares: the ETag; "" where there is no such file, None where the store gives no ETag."""
        try:
            return self._info(name).get("ETag") if self._on_s3 else None
        except FileNotFoundError:
            return ""

    def replace(self, name: str, data: bytes, version: str | None) -> bool:
        """Writes a whole file where it is still of this version; False when somebody replaced it.

        Only S3's conditional put is known to fsspec; elsewhere (version None) whatever is there is replaced.
        """
        if version is None:
            self.write(name, data)
            return True
        if not version:
            return self.create(name, data)
        path = self._path(name)
        try:
            self._patiently(name, lambda: self.fs.pipe_file(path, data, IfMatch=version))
        except (FileExistsError, FileNotFoundError):
            return self.exists(name) and self.read(name) == data
        return True

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Buckets have no locks: nothing is held, and what happens under it must stand a second writer."""
        yield

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens when it is not there."""
        path = self._path(name)
        if self.exists(name):
            with suppress(FileNotFoundError):
                self._patiently(name, lambda: self.fs.rm_file(path))

    def abort_uploads(self, older_than_s: float) -> tuple[str, ...]:
        """Ends uploads in parts that were begun here and never completed: S3 keeps, and bills, their parts."""
        if not self._on_s3:
            return ()
        bucket, _, prefix = self._prefix.partition("/")
        uploads = self._patiently("", lambda: self.fs.list_multipart_uploads(bucket))
        before = datetime.now(UTC).timestamp() - older_than_s
        old = [u for u in uploads if u["Key"].startswith(f"{prefix}/") and u["Initiated"].timestamp() < before]
        for upload in old:
            what = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            with suppress(FileNotFoundError):
                self._patiently("", partial(self.fs.call_s3, "abort_multipart_upload", **what))
        return tuple(f"{upload['Key'].removeprefix(f'{prefix}/')} (an upload in parts)" for upload in old)

    def _connect(self) -> None:
        self._fs, self._prefix = url_to_fs(self.uri, use_listings_cache=False)
        self._process = os.getpid()

    @property
    def _on_s3(self) -> bool:
        protocol = self.fs.protocol
        return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def _on_web(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    @property
    def _at_once(self) -> dict[str, Any]:
        """How a small file is read: in one request, where s3fs would ask for its size first."""
        return {"max_concurrency": 1} if self._on_s3 else {}

    @property
    def _exactly(self) -> dict[str, Any]:
        """How a part of a file is read: as it is, where huggingface_hub would read 5 MB."""
        return {"cache_type": "none"} if self.uri.startswith("hf://") else {}

    @property
    def _streamed(self) -> dict[str, Any]:
        """How a file is opened that is read once, from its beginning: many web servers give no parts of a file."""
        return {"block_size": 0} if self._on_web else {}

    def _put_new(self, name: str, data: bytes) -> None:
        path = self._path(name)
        self._patiently(name, lambda: self.fs.pipe_file(path, data, mode="create"))

    def _info(self, name: str) -> dict[str, Any]:
        path = self._path(name)
        return self._patiently(name, lambda: self.fs.info(path))

    def _patiently(self, name: str, act: Callable[[], T]) -> T:
        return patiently(act, f"{self.uri}/{name}".rstrip("/"))

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{inside(name)}"


def _version(entry: dict[str, Any]) -> str:
    """What a listing tells of a file that is another when it was written anew; "" where it tells nothing."""
    return next((str(entry[key]) for key in VERSIONS if entry.get(key)), "")
