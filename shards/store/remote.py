"""A dataset under an fsspec URI: an object is there whole or not at all, and may be asked for again and again.

A put may have happened although its reply was lost. So `create` looks at what is there before it says who was first,
and `publish` writes under names that hold the content's hash, where twice is as good as once.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from toto.files import cache_folder
from toto.shards.store.names import SCRATCH
from toto.shards.store.remote_reads import RemoteReads


class RemoteStore(RemoteReads):
    """A dataset under an fsspec URI. What passes is tried again; UserError where the store refuses or stays away."""

    report_every_s = 15.0  # how often a run may write its progress here

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteStore, (self.uri,)

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
        path = self.path(name)

        def put() -> None:
            try:
                self.fs.put_file(str(finished), path)
            except FileNotFoundError as error:
                if "upload" not in str(error):
                    raise
                raise ConnectionError("an upload in parts is gone; it had ended, and the reply was lost") from None

        self.patiently(name, put)

    def write(self, name: str, data: bytes) -> None:
        """Writes a whole file in one put; replaces what is there."""
        path = self.path(name)
        self.patiently(name, lambda: self.fs.pipe_file(path, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a whole file only if the name is free; False when somebody else was first.

        Of two who write the same bytes at the same moment, both may be told True.
        """
        return not self.exists(name) and self._put_new(name, data)

    def create_twice(self, name: str) -> tuple[bool, bool]:
        """What `is_exclusive` asks: whether each of two conditional puts of one name went through."""
        return self._put_new(name, b"first"), self._put_new(name, b"second")

    def version(self, name: str) -> str | None:
        """What `replace` compares: the ETag; "" where there is no such file, None where the store gives no ETag."""
        try:
            return self.facts(name).get("ETag") if self.on_s3 else None
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
        path = self.path(name)
        try:
            self.patiently(name, lambda: self.fs.pipe_file(path, data, IfMatch=version))
        except (FileExistsError, FileNotFoundError):
            return self.exists(name) and self.read(name) == data
        return True

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Buckets have no locks: nothing is held, and what happens under it must stand a second writer."""
        yield

    def remove(self, name: str) -> None:
        """Removes a file; nothing happens when it is not there."""
        path = self.path(name)
        if self.exists(name):
            with suppress(FileNotFoundError):
                self.patiently(name, lambda: self.fs.rm_file(path))

    def abort_uploads(self, older_than_s: float) -> tuple[str, ...]:
        """Ends uploads in parts that were begun here and never completed: S3 keeps, and bills, their parts."""
        if not self.on_s3:
            return ()
        bucket, _, prefix = self.place("").partition("/")
        uploads = self.patiently("", lambda: self.fs.list_multipart_uploads(bucket))
        before = datetime.now(UTC).timestamp() - older_than_s
        old = [u for u in uploads if u["Key"].startswith(f"{prefix}/") and u["Initiated"].timestamp() < before]
        for upload in old:
            what = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            with suppress(FileNotFoundError):
                self.patiently("", partial(self.fs.call_s3, "abort_multipart_upload", **what))
        return tuple(f"{upload['Key'].removeprefix(f'{prefix}/')} (an upload in parts)" for upload in old)

    def _put_new(self, name: str, data: bytes) -> bool:
        """Whether a conditional put went through; of one whose reply was lost, whether the bytes there are these."""
        path = self.path(name)
        try:
            self.patiently(name, lambda: self.fs.pipe_file(path, data, mode="create"))
        except FileExistsError:  # by somebody else, or by an earlier try of ours
            return self.read(name) == data
        return True
