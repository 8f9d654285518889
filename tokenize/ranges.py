"""A file's bytes at random, for readers of headers: one small read at a time, a little ahead.

Each read fetches at least as much as one request or one page costs anyway, so headers that lie close together, and
small files between them, come with one read.
"""

import os
from typing import Any, Self

from toto.tokenize.part import plain_path
from toto.tokenize.storage import filesystem, in_store, on_disk
from toto.tokenize.transient import REMOTE_PAUSES_S, resumed

AHEAD_LOCAL, AHEAD_REMOTE = 4096, 32_768  # bytes


class Ranges:
    """`read(offset, size)` of a local path or an fsspec URI with so many bytes; what may pass is tried again.

    Raises SourceError `missing` or `open_error`, or TransientError after the last try.
    """

    def __init__(self, uri: str, file_bytes: int) -> None:
        path = plain_path(uri)
        self._handle = None if path is None else on_disk(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._files: Any = None
        if path is None:
            self._files, self._name = filesystem(uri)
        self._ahead = AHEAD_REMOTE if path is None else AHEAD_LOCAL
        self._end = file_bytes  # some stores refuse a range that goes beyond it
        self._at, self._held = 0, b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes from `offset` on; fewer than `size` at the end of the file."""
        begin = offset - self._at
        if not (0 <= begin and begin + size <= len(self._held)):
            self._at, self._held, begin = (
                offset,
                self._fetch(offset, min(self._end, offset + max(size, self._ahead))),
                0,
            )
        return self._held[begin : begin + size]

    def _fetch(self, begin: int, end: int) -> bytes:
        if begin >= end:
            return b""
        handle = self._handle
        if handle is not None:
            return next(resumed(lambda: [on_disk(lambda: os.pread(handle, end - begin, begin))]))
        asked = resumed(
            lambda: [in_store(lambda: self._files.cat_file(self._name, start=begin, end=end))], REMOTE_PAUSES_S
        )
        return next(asked)
