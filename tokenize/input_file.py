"""A source's bytes: a local path or an fsspec URI, checked before any decoder sees it.

`missing` and `empty` are told here; what may pass (a stale NFS handle, a store that does not answer) becomes
a TransientError, which is tried again.
"""

import os
import stat
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from toto.tokenize.clip import SourceError, one_line
from toto.tokenize.transient import ERRNOS, TransientError

T = TypeVar("T")
_ABSENT = (FileNotFoundError, NotADirectoryError)


def local_path(uri: str) -> str | None:
    """The path of a file on this machine; None for a URI of another file system."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return None if "://" in uri else uri


def check(uri: str) -> None:
    """Raises SourceError `missing`, `empty` or `open_error` (no plain file), or TransientError."""
    path = local_path(uri)
    size = _remote_size(uri) if path is None else _local_size(path)
    if size == 0:
        raise SourceError("empty", "the file has 0 bytes")


def open_binary(uri: str) -> BinaryIO:
    """The file's bytes, seekable. Errors as in `check`."""
    path = local_path(uri)
    if path is None:
        return RemoteFile(uri)  # type: ignore[return-value]  # it offers what readers of media use
    return _local(lambda: open(path, "rb"))


def still_readable(path: str) -> None:
    """Reads a whole local file; raises TransientError when the disk, not the content, is at fault.

    FFmpeg's demuxers answer EIO for damaged content too, so the error alone does not tell.
    """

    def read() -> None:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass

    _local(read)


class RemoteFile:
    """A file of an fsspec file system; whatever goes wrong while it is read is a TransientError."""

    def __init__(self, uri: str) -> None:
        self.name = uri
        filesystem, path = _filesystem(uri)
        self._file = _remote(lambda: filesystem.open(path, "rb"))

    def read(self, size: int = -1) -> bytes:
        return _remote(lambda: self._file.read(size))

    def seek(self, offset: int, whence: int = 0) -> int:
        return _remote(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _local_size(path: str) -> int:
    status = _local(lambda: os.stat(path))
    if not stat.S_ISREG(status.st_mode):
        raise SourceError("open_error", "not a plain file")
    return status.st_size


def _remote_size(uri: str) -> int | None:
    filesystem, path = _filesystem(uri)
    info = _remote(lambda: filesystem.info(path))
    if info.get("type") == "directory":
        raise SourceError("open_error", "not a plain file")
    return info.get("size")


def _filesystem(uri: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs  # a fifth of a second that local files need not wait for

    return url_to_fs(uri)


def _local(act: Callable[[], T]) -> T:
    try:
        return act()
    except _ABSENT as error:
        raise SourceError("missing", one_line(error)) from error
    except OSError as error:
        if error.errno in ERRNOS:
            raise TransientError(one_line(error)) from error
        raise SourceError("open_error", one_line(error)) from error


def _remote(act: Callable[[], T]) -> T:
    try:
        return act()
    except _ABSENT as error:
        raise SourceError("missing", one_line(error)) from error
    except PermissionError as error:
        raise SourceError("open_error", one_line(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # every store has exceptions of its own
        raise TransientError(one_line(error)) from error
