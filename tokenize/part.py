"""A member of an uncompressed tar as a source of its own: `part:OFFSET+SIZE:URI`, read where it lies.

    part:1536+98304:/data/train/00000.tar      98,304 bytes from byte 1,536 on
    part:1536+98304:s3://bucket/00000.tar

The block before the member is its header. It is read first and must say the same size, so a tar that was rewritten
or cut since it was listed is told, and is never decoded as something else.
"""

import io
import os
import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO, Self

from toto.tokenize.clip import SourceError
from toto.tokenize.storage import RemoteFile, filesystem, in_store, on_disk
from toto.tokenize.transient import TransientError
from toto.uris import shown

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: a tar is made of these
WHOLE_BYTES = 8 * 2**20  # a member of a store's tar up to this size is fetched at once, and nothing beyond it
_PART = re.compile(r"part:(\d{1,18})\+(\d{1,18}):(.+)", re.DOTALL)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")
_LARGEST_IN_HEADER = 8**11  # bytes; the size of a larger member may stand in a PAX record instead


@dataclass(frozen=True, slots=True)
class Part:
    """A range of bytes of a file."""

    offset: int
    size: int
    uri: str  # of the file: a local path or what fsspec opens

    def __str__(self) -> str:
        return f"part:{self.offset}+{self.size}:{self.uri}"


def parse_part(uri: str) -> Part | None:
    """The part that a URI names; None for one that names a whole file."""
    match = _PART.fullmatch(uri) if uri.startswith("part:") else None
    return Part(int(match[1]), int(match[2]), match[3]) if match else None


def plain_path(uri: str) -> str | None:
    """The path of a whole file on this machine; None for a URI of another file system."""
    if uri.startswith("file://"):
        return uri.removeprefix("file://")
    return None if "://" in uri else uri


class PartFile:
    """The bytes of a part as a file that can be read and sought; it never reads beyond them.

    Raises SourceError `missing`, or `open_error` when this part of the file is not what was listed; TransientError.
    """

    def __init__(self, part: Part) -> None:
        self._size = part.size
        self._at = 0
        self._file, self._start = _open(part)
        try:
            # FFmpeg looks at the suffix where the content does not tell
            self.name = f"part{_checked(part, self._bytes(-BLOCK, BLOCK))}"
            end = on_disk(lambda: self._file.seek(0, io.SEEK_END))
            if end < self._start + self._size:
                raise _too_short(self._start + self._size - end)
        except (SourceError, TransientError):
            self.close()
            raise

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes; raises SourceError `open_error` when the file ends inside the part."""
        left = max(0, self._size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._bytes(self._at, wanted) if wanted else b""
        if len(data) < wanted:
            raise _too_short(wanted - len(data))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _bytes(self, at: int, size: int) -> bytes:
        def read() -> bytes:
            self._file.seek(self._start + at)
            return self._file.read(size)

        return on_disk(read)


def _open(part: Part) -> tuple[BinaryIO | RemoteFile, int]:
    """A file that holds the part and the block before it, and where in it the part begins."""
    path = plain_path(part.uri)
    if path is not None:
        return on_disk(lambda: open(path, "rb")), part.offset
    if part.size > WHOLE_BYTES:
        return RemoteFile(part.uri), part.offset
    return io.BytesIO(_fetched(part)), BLOCK


def _fetched(part: Part) -> bytes:
    """The part and the block before it, in one request."""
    files, name = filesystem(part.uri)
    begin, end = part.offset - BLOCK, part.offset + part.size
    try:
        return in_store(lambda: files.cat_file(name, start=max(0, begin), end=end))
    except TransientError:
        size = in_store(lambda: files.info(name)).get("size")
        if size is None or size >= end:
            raise
        raise _too_short(end - size) from None  # there are stores that refuse a range that goes beyond the file


def _checked(part: Part, header: bytes) -> str:
    """The suffix of the member's name; SourceError when this is not the header of a member of this size."""
    try:
        info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        archive = os.path.basename(shown(part.uri))
        raise SourceError("open_error", f"byte {part.offset} of {archive} begins no member; was it changed?") from None
    if info.size != part.size and part.size < _LARGEST_IN_HEADER:
        raise SourceError(
            "open_error", f"the archive's header gives this member {info.size} bytes, {part.size} are there"
        )
    suffix = _SUFFIX.search(info.name)
    return suffix.group() if suffix else ""


def _too_short(missing: int) -> SourceError:
    return SourceError("open_error", f"the archive ends {missing} bytes too early; was it changed?")
