"""A member of an uncompressed tar as a source of its own: `part:OFFSET+SIZE+HEAD+HASH:URI`, read where it lies.

    part:1536+98304+512+4be2aa01:/data/train/00000.tar     98,304 bytes from byte 1,536 on, their header 512 before
    part:1536+98304+512+4be2aa01:s3://bucket/00000.tar

The headers before the member (its name, size, time; a long name or PAX records too) are read first and must have the
hash that they had when the tar was listed. So a tar that was rewritten or cut since then is told, and a member is never
decoded as another, not even as one of its size.
"""

import io
import os
import re
import tarfile
from dataclasses import dataclass
from typing import BinaryIO, Self

import xxhash

from toto.plain import counted
from toto.tokenize.clip import SourceError
from toto.tokenize.storage import RemoteFile, filesystem, in_store, on_disk
from toto.tokenize.transient import TransientError
from toto.uris import shown

BLOCK = tarfile.BLOCKSIZE  # 512 bytes: a tar is made of these
WHOLE_BYTES = 8 * 2**20  # a member of a store's tar up to this size is fetched at once, and nothing beyond it
HEAD = re.compile(r"part:\d{1,18}\+\d{1,18}\+\d{1,9}\+[0-9a-f]{8}:")  # of a part's URI: the file's follows
_PART = re.compile(r"part:(\d{1,18})\+(\d{1,18})\+(\d{1,9})\+([0-9a-f]{8}):(.+)", re.DOTALL)
_LARGEST_IN_HEADER = 8**11  # bytes; the size of a larger member may stand in a PAX record instead
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}\Z")


@dataclass(frozen=True, slots=True)
class Part:
    """A range of bytes of a file."""

    offset: int
    size: int
    head: int  # bytes of headers directly before it
    head_hash: str  # 8 hex digits
    uri: str  # of the file: a local path or what fsspec opens

    def __str__(self) -> str:
        return f"part:{self.offset}+{self.size}+{self.head}+{self.head_hash}:{self.uri}"


def parse_part(uri: str) -> Part | None:
    """The part that a URI names; None for one that names a whole file."""
    match = _PART.fullmatch(uri) if uri.startswith("part:") else None
    return Part(int(match[1]), int(match[2]), int(match[3]), match[4], match[5]) if match else None


def head_hash(head: bytes | bytearray) -> str:
    """What a part keeps of the headers before it: 8 hex digits of xxh3."""
    return xxhash.xxh3_64_hexdigest(head)[:8]


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
            self.name = f"part{_checked(part, self._bytes(-part.head, part.head))}"
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
    """A file that holds the part and the headers before it, and where in it the part begins."""
    path = plain_path(part.uri)
    if path is not None:
        return on_disk(lambda: open(path, "rb")), part.offset
    if part.size > WHOLE_BYTES:
        return RemoteFile(part.uri), part.offset
    return io.BytesIO(_fetched(part)), part.head


def _fetched(part: Part) -> bytes:
    """The part and the headers before it, in one request."""
    files, name = filesystem(part.uri)
    begin, end = part.offset - part.head, part.offset + part.size
    try:
        return in_store(lambda: files.cat_file(name, start=max(0, begin), end=end))
    except TransientError:
        size = in_store(lambda: files.info(name)).get("size")
        if size is None or size >= end:
            raise
        raise _too_short(end - size) from None  # there are stores that refuse a range that goes beyond the file


def _checked(part: Part, head: bytes) -> str:
    """The suffix of the member's name; SourceError when these are not the headers of the member that was listed."""
    archive = os.path.basename(shown(part.uri))
    try:
        info = tarfile.TarInfo.frombuf(head[-BLOCK:], "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        raise SourceError("open_error", f"byte {part.offset} of {archive} begins no member; was it changed?") from None
    if head_hash(head) != part.head_hash:
        raise SourceError("open_error", f"byte {part.offset} of {archive} begins another member; was it changed?")
    if info.size != part.size and part.size < _LARGEST_IN_HEADER:  # it is cut
        raise SourceError(
            "open_error", f"the archive's header gives this member {info.size:,} bytes, there are {part.size:,}"
        )
    suffix = _SUFFIX.search(info.name)
    return suffix.group() if suffix else ""


def _too_short(missing: int) -> SourceError:
    return SourceError("open_error", f"the archive ends {counted(missing, 'byte')} too early; was it changed?")
