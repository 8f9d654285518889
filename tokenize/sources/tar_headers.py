"""The files in a tar, by its headers alone: names, sizes, and where their bytes lie. Nothing is extracted.

    header, 512 bytes ─▶ (long name, PAX records) ─▶ header of the file ─▶ its bytes, passed over ─▶ next header

Old, ustar, GNU and PAX tars are read. A tar comes from strangers: lengths are bounded, every step goes forward, and
where it is damaged or cut, what stands before that is given and the rest is counted.
"""

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from toto.tokenize.part import head_hash

BLOCK = tarfile.BLOCKSIZE
MAX_RECORDS_BYTES = 2**20  # of a long name, or of the PAX records of one file
MAX_HEAD_BYTES = 2**16  # of the headers before one file, as far as they are kept to know it again: the last
END_BYTES = 20 * BLOCK  # tars are padded to as many

DAMAGED = "(damaged tar)"
CUT = "(tar cut short)"
UNENDED = "(tar without its end)"
TRAILING = "(more after the end of a tar)"
LINK = "(link in a tar)"
SPARSE = "(sparse file in a tar)"
SPECIAL = "(not a regular file)"

Read = Callable[[int, int], bytes]  # (offset, size) -> the bytes, fewer at the end of the file
_LONG_NAME, _LONG_LINK = tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_RECORDS = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTRA = (_LONG_NAME, _LONG_LINK, tarfile.XGLTYPE, *_RECORDS)  # they speak of the file that follows, or of all
_SPARSE_KEY = "GNU.sparse."  # PAX records of sparse files begin so
_WITHOUT_BYTES = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file in a tar."""

    name: str  # as it stands; bytes that are not UTF-8 are surrogates
    offset: int  # of its first byte in the file that holds the tar
    size: int  # bytes that are there: fewer than its header says where the tar is cut
    mtime_s: int
    head: int  # bytes directly before the first that speak of it: long name, PAX records, header; 64 KiB at most
    head_hash: str  # of these


class _Damaged(Exception):
    """A header that is none, or that asks for too much."""


def tar_entries(read: Read, start: int, end: int, ignored: Counter[str]) -> Iterator[Entry]:
    """The regular files of the tar in bytes [start, end) of a file, in order; what else is there is counted."""
    at, is_cut = start, False
    said: dict[str, str] = {}
    head = bytearray()
    try:
        while at + BLOCK <= end:
            block = _whole(read(at, BLOCK), BLOCK)
            if not any(block):
                return _look_behind(read(at, min(END_BYTES, end - at)), ignored)
            info, at = _parse(block), at + BLOCK
            head += block
            if info.type in _EXTRA:
                content = _records_of(info, read, at, end)
                said |= _said(info, content[: info.size])
                at += _padded(info.size)
                head += content
                del head[: -MAX_HEAD_BYTES + BLOCK]
                continue
            at = _behind_sparse_map(info, block, read, at)
            size = 0 if info.type in _WITHOUT_BYTES else _number(said.get("size"), info.size)
            is_cut = at + size > end
            if _is_file(info, said):
                mtime_s = _seconds(said.get("mtime"), info.mtime)
                there = min(size, max(0, end - at))
                yield Entry(said.get("path", info.name), at, there, mtime_s, len(head), head_hash(head))
            else:
                _count(info, said, ignored)
            at, said, head = at + _padded(size), {}, bytearray()
        ignored[CUT if is_cut or at < end else UNENDED] += 1
    except (_Damaged, tarfile.HeaderError, ValueError):
        ignored[DAMAGED] += 1
    return None


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:  # the file has become shorter
        raise _Damaged
    return data


def _parse(block: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if info.size < 0:
        raise _Damaged
    return info


def _records_of(info: tarfile.TarInfo, read: Read, data: int, end: int) -> bytes:
    """The content of a header that speaks of the file that follows, padded."""
    if info.size > min(MAX_RECORDS_BYTES, end - data):
        raise _Damaged
    content = read(data, _padded(info.size))
    if len(content) < info.size:
        raise _Damaged
    return content


def _said(info: tarfile.TarInfo, content: bytes) -> dict[str, str]:
    """What a long name or PAX records say of the file that follows."""
    if info.type == _LONG_NAME:
        return {"path": content.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")}
    if info.type not in _RECORDS:
        return {}
    return {_SPARSE_KEY if key.startswith(_SPARSE_KEY) else key: value for key, value in _records(content)}


def _records(content: bytes) -> Iterator[tuple[str, str]]:
    """PAX: "<length of the whole record> <key>=<value>\n", one after another."""
    at = 0
    while at < len(content) and content[at]:
        digits, blank, _ = content[at : at + 20].partition(b" ")
        length = int(digits) if blank and digits.isdigit() else 0
        key, equals, value = content[at + len(digits) + 1 : at + length - 1].partition(b"=")
        if not equals or at + length > len(content) or content[at + length - 1 : at + length] != b"\n":
            raise _Damaged
        if key in (b"path", b"size", b"mtime") or key.startswith(_SPARSE_KEY.encode()):
            yield key.decode("utf-8", "replace"), value.decode("utf-8", "surrogateescape")
        at += length


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _Damaged
    return int(text)


def _seconds(text: str | None, default: float) -> int:
    """PAX times have fractions; one that is none of a file's is 0."""
    try:
        seconds = float(text) if text is not None else default
        return int(seconds) if abs(seconds) < 2**40 else 0
    except ValueError:
        return 0


def _is_file(info: tarfile.TarInfo, said: dict[str, str]) -> bool:
    return info.type in tarfile.REGULAR_TYPES and not _is_sparse(info, said)


def _is_sparse(info: tarfile.TarInfo, said: dict[str, str]) -> bool:
    return info.type == tarfile.GNUTYPE_SPARSE or _SPARSE_KEY in said


def _count(info: tarfile.TarInfo, said: dict[str, str], ignored: Counter[str]) -> None:
    if info.type in (tarfile.LNKTYPE, tarfile.SYMTYPE):
        ignored[LINK] += 1
    elif _is_sparse(info, said):
        ignored[SPARSE] += 1
    elif info.type != tarfile.DIRTYPE:
        ignored[SPECIAL] += 1


def _behind_sparse_map(info: tarfile.TarInfo, block: bytes, read: Read, data: int) -> int:
    """Where the bytes begin: GNU's old sparse files have further blocks of their map before them."""
    is_extended = info.type == tarfile.GNUTYPE_SPARSE and bool(block[482])
    while is_extended:
        block = _whole(read(data, BLOCK), BLOCK)
        is_extended = bool(block[504])
        data += BLOCK
    return data


def _look_behind(rest: bytes, ignored: Counter[str]) -> None:
    """Tars laid one after another: tar itself stops at the first one's end, and so do we, but say so."""
    if any(rest):
        ignored[TRAILING] += 1


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
