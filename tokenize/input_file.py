"""A source's bytes: a local path, an fsspec URI or a part of such a file, checked before any decoder sees it.

`missing` and `empty` are told here; what may pass (a stale NFS handle, a store that does not answer) becomes
a TransientError, which is tried again.
"""

import os
import stat
from typing import BinaryIO

from toto.tokenize.clip import SourceError
from toto.tokenize.part import PartFile, parse_part, plain_path
from toto.tokenize.storage import RemoteFile, filesystem, in_store, on_disk


def local_path(uri: str) -> str | None:
    """The path of a file on this machine; None for a URI of another file system, and for a part of a file."""
    return None if parse_part(uri) else plain_path(uri)


def check(uri: str) -> None:
    """Raises SourceError `missing`, `empty` or `open_error` (no plain file), or TransientError."""
    part = parse_part(uri)
    path = plain_path(uri if part is None else part.uri)
    if path is not None:
        size: int | None = _local_size(path)
    else:
        size = _remote_size(uri) if part is None else None  # opening a store's part asks for its bytes at once
    if (size if part is None else part.size) == 0:
        raise SourceError("empty", "the file has 0 bytes")


def open_binary(uri: str) -> BinaryIO:
    """The source's bytes, seekable. Errors as in `check`."""
    part = parse_part(uri)
    if part is not None:
        return PartFile(part)  # type: ignore[return-value]  # it offers what readers of media use
    path = plain_path(uri)
    if path is None:
        return RemoteFile(uri)  # type: ignore[return-value]
    return on_disk(lambda: open(path, "rb"))


def still_readable(path: str) -> None:
    """Reads a whole local file; raises TransientError when the disk, not the content, is at fault.

    FFmpeg's demuxers answer EIO for damaged content too, so the error alone does not tell.
    """

    def read() -> None:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass

    on_disk(read)


def _local_size(path: str) -> int:
    status = on_disk(lambda: os.stat(path))
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("open_error", "not a plain file")
    return status.st_size


def _remote_size(uri: str) -> int | None:
    files, path = filesystem(uri)
    info = in_store(lambda: files.info(path))
    if info.get("type") == "directory":
        raise SourceError("open_error", "not a plain file")
    return info.get("size")
