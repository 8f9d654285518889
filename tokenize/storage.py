"""The two places a file may be in, this machine and an fsspec file system, and what goes wrong there, typed.

`missing` and `open_error` are the source's fault; what may pass (a stale NFS handle, a store that does not answer)
is a TransientError, which is tried again.
"""

import shutil
import tempfile
from collections.abc import Callable
from typing import IO, Any, Self, TypeVar

from toto.tokenize.clip import SourceError, one_line
from toto.tokenize.transient import ERRNOS, TransientError

T = TypeVar("T")
_ABSENT = (FileNotFoundError, NotADirectoryError)


def on_disk(act: Callable[[], T]) -> T:
    """What `act` returns; its OSError as SourceError `missing` or `open_error`, or TransientError."""
    try:
        return act()
    except _ABSENT as error:
        raise SourceError("missing", one_line(error)) from error
    except OSError as error:
        if error.errno in ERRNOS:
            raise TransientError(one_line(error)) from error
        raise SourceError("open_error", one_line(error)) from error


def in_store(act: Callable[[], T]) -> T:
    """What `act` returns; its error as SourceError `missing` or `open_error`, or TransientError."""
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


def filesystem(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, and the path in it."""
    from fsspec.core import url_to_fs  # a fifth of a second that local files need not wait for

    return url_to_fs(uri)


class RemoteFile:
    """A file of an fsspec file system; whatever goes wrong while it is read is a TransientError.

    Of a web server that gives no parts of files, a file larger than fsspec's first block (5 MB) is fetched whole.
    """

    def __init__(self, uri: str) -> None:
        self.name = uri
        self._files, self._path = filesystem(uri)
        self._file = in_store(lambda: self._files.open(self._path, "rb"))

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        try:
            return in_store(lambda: self._file.read(size))
        except TransientError as error:
            if not isinstance(error.__cause__, ValueError):  # fsspec's for "no range requests"
                raise
        self._file.close()
        self._file = in_store(self._fetched)
        self._file.seek(at)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return in_store(lambda: self._file.seek(offset, whence))

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

    def _fetched(self) -> IO[bytes]:
        """The whole file, on this machine until it is closed."""
        copy = tempfile.TemporaryFile()
        with self._files.open(self._path, "rb", block_size=0) as file:
            shutil.copyfileobj(file, copy)
        return copy

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
