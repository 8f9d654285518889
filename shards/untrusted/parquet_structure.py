"""What would this Parquet file become in memory? Asked of a stranger's bytes before pyarrow parses any of them.

    footer -> row groups -> column chunks -> page headers, one after the other: their sizes and numbers of values

A file of a few kilobytes can claim 10^12 rows, or repeat one long string a million times: what its pages claim is
added up here. Strings that come out of a dictionary are counted at the dictionary's size each, which is far too much
for an honest file; those columns are named, so that they can be read as a dictionary and its indices, and measured.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toto.shards.untrusted.thrift import read_struct

MAX_FOOTER_BYTES = 2 << 20  # a table of ours takes 4 KB, and 4 KB more for each million rows
MAX_TABLE_BYTES = 1 << 30  # in memory; more only where the file is large itself
FILE_FACTOR = 32  # that many times the file, then
_MAX_HEADER_BYTES = 64 << 10  # of a page; it may hold a lowest and a highest value
_MAGIC = b"PAR1"
_WIDTHS = {0: 1, 1: 4, 2: 8, 3: 12, 4: 4, 5: 8}  # bytes of a value by physical type
_BYTE_ARRAY, _FIXED = 6, 7
_LEVELS = 4  # bytes a value while it is being read: definition and repetition level
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PLAIN, _DELTA_LENGTH, _DICTIONARY_CODED = 0, 6, (2, 8)


@dataclass
class _Column:
    """Pages of one column in all row groups: bytes and values that they claim."""

    kind: int
    width: int
    path: tuple[str, ...]
    bytes: int = 0
    values: int = 0
    repeated: int = 0  # bytes at most that strings out of dictionaries take
    prefixed: int = 0  # bytes at most that strings take which are told by their difference from the one before


def most_bytes(data: bytes) -> int:
    """How much memory a table from this file may take."""
    return max(MAX_TABLE_BYTES, FILE_FACTOR * len(data))


def strings_to_measure(data: bytes) -> list[str]:
    """Holds the file's claims against `most_bytes`; the columns that fit only if their strings turn out short.

    ValueError where the file is no Parquet file, or claims more than fits.
    """
    columns, most = sorted(_columns(data), key=lambda column: column.repeated), most_bytes(data)
    total = sum(c.bytes + c.values * (c.width + _LEVELS) + c.prefixed for c in columns)
    measured = []
    for column in columns:
        if total + column.repeated > most and column.repeated:
            measured.append(column)
        else:
            total += column.repeated
    if total > most or any(len(column.path) > 1 for column in measured):
        raise ValueError(f"a table that would take more than {most:,} bytes")
    return [column.path[0] for column in measured]


def _columns(data: bytes) -> list[_Column]:
    if len(data) < 12 or data[:4] != _MAGIC or data[-4:] != _MAGIC:
        raise ValueError("it does not begin and end as a Parquet file does")
    length = int.from_bytes(data[-8:-4], "little")
    end = len(data) - 8 - length
    if not 0 < length <= MAX_FOOTER_BYTES or end < 4:
        raise ValueError(f"a footer of {length:,} bytes in a file of {len(data):,}")
    try:
        footer, _ = read_struct(data[end:-8])
        columns = list(_leaves(footer[2]))
        if sum(group[3] for group in footer[4]) != footer[3]:
            raise ValueError("its row groups have other rows than it says")
        for group in footer[4]:
            _add_group(data, group, columns, end)
    except (KeyError, TypeError, AttributeError, IndexError):
        raise ValueError("its footer lacks what every Parquet file has") from None
    return columns


def _leaves(elements: list[dict[int, Any]]) -> Iterator[_Column]:
    """The columns that hold values, of a schema told from the root down."""
    path: list[tuple[str, int]] = []  # names from the root, and how many of each one's children are still to come
    for element in elements:
        while path and not path[-1][1]:
            path.pop()
        if path:
            path[-1] = (path[-1][0], path[-1][1] - 1)
        name, children = element[4].decode("utf-8", "replace"), element.get(5, 0)
        if children:
            path.append((name, children))
        elif path:
            kind = element[1]
            width = element[2] if kind == _FIXED else _WIDTHS.get(kind, 8)
            if width < 0 or not 0 <= kind <= _FIXED:
                raise ValueError("a column of a type that Parquet does not have")
            yield _Column(kind, width, (*(part for part, _ in path[1:]), name))


def _add_group(data: bytes, group: dict[int, Any], columns: list[_Column], end: int) -> None:
    if len(group[1]) != len(columns):
        raise ValueError("a row group of another number of columns than the schema's")
    for chunk, column in zip(group[1], columns, strict=True):
        if chunk.get(1) or 8 in chunk or 9 in chunk:
            raise ValueError("a column that is encrypted, or in another file")
        facts = chunk[3]
        if facts[5] < group[3] or group[3] < 0:
            raise ValueError("a column of fewer values than there are rows")
        if not facts[5]:
            continue
        start = min(facts[9], facts.get(11) or facts[9])
        if start < 4 or facts[7] < 0 or start + facts[7] > end:
            raise ValueError("a column outside of the file")
        _add_pages(data, start, start + facts[7], facts[5], column)


def _add_pages(data: bytes, at: int, end: int, values: int, column: _Column) -> None:
    """Adds the claims of the pages between these places, until they hold all of the chunk's values."""
    dictionary = seen = 0
    while seen < values:
        header, length = read_struct(data[at : min(at + _MAX_HEADER_BYTES, end)])
        kind, inflated, stored = header[1], header[2], header[3]
        at += length + stored
        if inflated < 0 or stored < 0 or at > end:
            raise ValueError("a page outside of its column")
        column.bytes += inflated
        if kind == _DICTIONARY:
            dictionary = inflated
        elif kind in (_DATA, _DATA_V2):
            facts = header[5] if kind == _DATA else header[8]
            count, encoding = facts[1], facts[2 if kind == _DATA else 4]
            if count < 0:
                raise ValueError("a page of less than no values")
            seen += count
            column.values += count
            if column.kind == _BYTE_ARRAY and encoding in _DICTIONARY_CODED:
                column.repeated += count * dictionary
            elif column.kind in (_BYTE_ARRAY, _FIXED) and encoding not in (_PLAIN, _DELTA_LENGTH, *_DICTIONARY_CODED):
                column.prefixed += count * inflated
