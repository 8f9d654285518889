"""Two hashes, two jobs: sha256 of a file's bytes against damage, xxh3-128 of logical values as identity.

Arrow files have no checksums: a flipped bit reads back as good data. The content hash goes column by column over
values, never over file bytes, so it is the same for any zstd level, batch size or pyarrow version:

    column = xxh3-128(validity: one byte a row) + xxh3-128(lengths: u64 LE a row) + xxh3-128(values, little-endian)
    table  = xxh3-128 of, for each column in schema order: name, 0, type name, 0, the three digests

A null has validity 0, length 0 and, where the type has a fixed width, a value of zeros.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a local file, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Hex sha256 of a JSON value in canonical form (sorted keys, no spaces, UTF-8)."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


Parts = list[tuple[Any, Any, Any]]  # of each column: validity, lengths and values, as buffers that are hashed
SMALL = 1 << 16  # bytes of buffers that are the same for many columns and batches: kept, and their digests too


class Columns:
    """How the columns of a schema are hashed. ValueError for other types than numbers, strings, binary and lists of
    numbers: what Arrow hands out of those may be addresses of Python objects, which are others in each process."""

    def __init__(self, schema: pa.Schema) -> None:
        for field in schema:
            if _family(field.type) == _NO_HASH:
                raise ValueError(
                    f"column {field.name}: {field.type} has no content hash; numbers, strings, binary and lists of "
                    "numbers have one"
                )
        self.names = [field.name.encode() + b"\0" + type_name(field.type).encode() + b"\0" for field in schema]
        self._kinds = [(field.type, _family(field.type), _plain_width(field.type)) for field in schema]

    def parts(self, batch: pa.RecordBatch) -> Parts:
        """The bytes of a batch that the content hash goes over; views into its memory where nothing is null."""
        return [_parts(column, *kind) for column, kind in zip(batch.columns, self._kinds, strict=True)]


class ContentHasher:
    """Hashes the logical values of record batches of one schema; how they were cut into batches does not count.

    Raises ValueError for a column of a type that has no hash, as `Columns` does.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._columns = Columns(schema)
        self._hashers = [tuple(xxhash.xxh3_128() for _ in range(3)) for _ in schema]

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Adds the rows of a batch; a table is taken chunk by chunk."""
        for batch_ in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
            self.update_parts(self._columns.parts(batch_))

    def update_parts(self, parts: Parts) -> None:
        """Adds the rows of a batch of which `Columns.parts` was taken."""
        for hashers, buffers in zip(self._hashers, parts, strict=True):
            for hasher, buffer in zip(hashers, buffers, strict=True):
                hasher.update(buffer)

    def hexdigest(self) -> str:
        """32 hex digits."""
        return _whole(self._columns, ([hasher.digest() for hasher in hashers] for hashers in self._hashers))


def content_hash(table: pa.RecordBatch | pa.Table) -> str:
    """The content hash of one table or batch."""
    hasher = ContentHasher(table.schema)
    hasher.update(table)
    return hasher.hexdigest()


def batch_hash(columns: Columns, batch: pa.RecordBatch, also: ContentHasher | None = None) -> str:
    """The content hash of a batch of these columns, whose rows are added to `also` too."""
    parts = columns.parts(batch)
    if also is not None:
        also.update_parts(parts)
    return _whole(columns, (map(_digest, buffers) for buffers in parts))


def has_content(table: pa.Table, expected: str | None) -> bool:
    """Whether a table has this content hash; one of columns that have none has not."""
    try:
        return content_hash(table) == expected
    except ValueError:
        return False


def _whole(columns: Columns, digests: Iterable[Iterable[bytes]]) -> str:
    parts = (name + b"".join(three) for name, three in zip(columns.names, digests, strict=True))
    return xxhash.xxh3_128_hexdigest(b"".join(parts))


def _digest(buffer: Any) -> bytes:
    known = type(buffer) is bytes and len(buffer) <= SMALL
    return _known_digest(buffer) if known else xxhash.xxh3_128_digest(buffer)


@lru_cache(maxsize=256)
def _known_digest(buffer: bytes) -> bytes:
    return xxhash.xxh3_128_digest(buffer)


def _filled(pattern: bytes, count: int) -> bytes:
    return _known_filled(pattern, count) if count * len(pattern) <= SMALL else pattern * count


@lru_cache(maxsize=256)
def _known_filled(pattern: bytes, count: int) -> bytes:
    return pattern * count


def _parts(column: pa.Array, kind: pa.DataType, family: int, width: int) -> tuple[Any, Any, Any]:
    """Validity, lengths and values; `width` as `_plain_width` gives it."""
    rows, nulls = len(column), column.null_count
    if nulls and nulls == rows:
        numbers = _filled(b"\0", rows * _width(kind).itemsize) if family == _NUMBERS else b""
        return _filled(b"\0", rows), b"" if family in _NO_LENGTHS else _filled(b"\0", 8 * rows), numbers
    if rows and width and not nulls and not (family in _OF_VALUES and column.values.null_count):
        return _filled(b"\1", rows), *_whole_parts(column, rows, family, width)
    validity = column.is_valid().to_numpy(zero_copy_only=False).view(np.uint8) if nulls else np.ones(rows, np.uint8)
    if family == _FIXED_LISTS:
        return validity, b"", _numbers(column.flatten())
    if family == _NUMBERS:
        return validity, b"", _numbers(pc.fill_null(column, pa.scalar(0).cast(kind)) if nulls else column)
    if family == _LISTS:
        lengths, values = _lists(column)
    else:
        column = column.cast(pa.binary()) if pa.types.is_fixed_size_binary(kind) else column
        lengths, values = _strings(pc.fill_null(column, pa.scalar("").cast(column.type)) if nulls else column)
    return validity, lengths, values


def _whole_parts(column: pa.Array, rows: int, family: int, width: int) -> tuple[Any, Any]:
    """Lengths and values of a column that holds rows, none of them null; its memory as it is."""
    if family == _STRINGS and pa.types.is_fixed_size_binary(column.type):
        start, data = width * column.offset, column.buffers()[1]
        return _filled(width.to_bytes(8, "little"), rows), memoryview(data)[start : start + width * rows]
    if family == _STRINGS:
        return _strings(column)
    if family == _NUMBERS:
        return b"", _numbers_of(column, width, 0, rows)
    if family == _FIXED_LISTS:
        size = column.type.list_size
        return b"", _numbers_of(column.values, width, size * column.offset, size * rows)
    offsets = _offsets(column)
    first, last = int(offsets[0]), int(offsets[-1])
    return np.diff(offsets).astype(np.uint64), _numbers_of(column.values, width, first, last - first)


def _numbers_of(column: pa.Array, width: int, start: int, count: int) -> Any:
    """The bytes of so many numbers of a column, from one on."""
    data, start = column.buffers()[1], width * (column.offset + start)
    return b"" if data is None else memoryview(data)[start : start + width * count]


def _lists(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    if column.null_count:
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        return lengths.to_numpy().astype(np.uint64), _numbers(column.flatten())
    offsets = _offsets(column)
    return np.diff(offsets).astype(np.uint64), _numbers(column.values.slice(offsets[0], offsets[-1] - offsets[0]))


def _strings(column: pa.Array) -> tuple[np.ndarray, Any]:
    """Of strings or binary, none of them null."""
    offsets, data = _offsets(column), column.buffers()[2]
    values = b"" if data is None else memoryview(data)[offsets[0] : offsets[-1]]
    return np.diff(offsets).astype(np.uint64), values


def _offsets(column: pa.Array) -> np.ndarray:
    """[rows + 1]: where the values of each row begin and end."""
    types = (pa.types.is_large_list, pa.types.is_large_binary, pa.types.is_large_string)
    width = np.int64 if any(is_(column.type) for is_ in types) else np.int32
    if not len(column):
        return np.zeros(1, width)
    return np.frombuffer(column.buffers()[1], width, len(column) + 1, column.offset * np.dtype(width).itemsize)


def _numbers(column: pa.Array) -> np.ndarray:
    values = column.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values.view(np.uint8) if values.dtype == bool else values)


_NUMBERS, _STRINGS, _LISTS, _FIXED_LISTS, _NO_HASH = range(5)
_NO_LENGTHS = (_NUMBERS, _FIXED_LISTS)
_OF_VALUES = (_LISTS, _FIXED_LISTS)


@cache
def _family(kind: pa.DataType) -> int:
    """How values of this type are hashed."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        lists = _FIXED_LISTS if types.is_fixed_size_list(kind) else _LISTS
        return lists if _family(kind.value_type) == _NUMBERS else _NO_HASH
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return _NUMBERS
    return _STRINGS if _is_text(kind) or types.is_fixed_size_binary(kind) else _NO_HASH


def _is_text(kind: pa.DataType) -> bool:
    """Whether values are strings or binary of any length."""
    types = pa.types
    return any(is_(kind) for is_ in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary))


@cache
def _plain_width(kind: pa.DataType) -> int:
    """Bytes of a number, or of a fixed-size binary, that lies in Arrow's memory as it is hashed, or of the numbers of
    lists; 1 for strings; 0 for all others."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind = kind.value_type
    elif types.is_fixed_size_binary(kind):
        return kind.byte_width
    elif _is_text(kind):
        return 1
    return kind.bit_width // 8 if types.is_integer(kind) or types.is_floating(kind) else 0


def _width(kind: pa.DataType) -> np.dtype:
    return np.dtype(np.uint8 if pa.types.is_boolean(kind) else kind.to_pandas_dtype())


@cache
def type_name(kind: pa.DataType) -> str:
    """How a column's type is spelled in hashes."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    if pa.types.is_fixed_size_list(kind):
        return f"list<{type_name(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_fixed_size_binary(kind):
        return f"binary[{kind.byte_width}]"
    names = {"double": "float64", "float": "float32", "halffloat": "float16"}
    return names.get(str(kind), str(kind).removeprefix("large_"))
