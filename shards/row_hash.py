"""Rows as a multiset: a hash for each row, and their sum, which no order and no cutting into files changes.

    row hash  the content hash (hashing.py) of a table that holds this row alone: 128 bits
    RowSum    how many rows there are, and the sum of their hashes mod 2^128

Two datasets whose sums agree hold the same rows, a row that stands twice counted twice. Row by row a content hash
takes 58 digests; here a column's equal values share one, and what is left is about three digests a row.
"""

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from toto.shards.hashing import type_name

MASK = (1 << 128) - 1
SIZE = 16  # bytes of a digest
ROWS_AT_ONCE = 2_048  # at about 1.3 KB a row
_NOTHING = xxhash.xxh3_128_digest(b"")
_VALID, _NULL = xxhash.xxh3_128_digest(b"\1"), xxhash.xxh3_128_digest(b"\0")


@dataclass
class RowSum:
    """Of rows seen so far: their number, and the sum of their hashes mod 2^128."""

    rows: int = 0
    total: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Counts the rows of a batch in."""
        self.rows += batch.num_rows
        self.total = (self.total + sum(row_hashes(batch))) & MASK

    def __add__(self, other: "RowSum") -> "RowSum":
        return RowSum(self.rows + other.rows, (self.total + other.total) & MASK)

    @property
    def hex(self) -> str:
        """The sum as 32 hex digits."""
        return f"{self.total:032x}"


def row_hashes(batch: pa.RecordBatch) -> list[int]:
    """The hash of each row, as the number that its hex digits spell. Columns as in a shard; ValueError for others."""
    starts = range(0, batch.num_rows, ROWS_AT_ONCE)
    return [digest for start in starts for digest in _hashes(batch.slice(start, ROWS_AT_ONCE))]


def _hashes(batch: pa.RecordBatch) -> list[int]:
    """The bytes that each row's hash goes over stand in one table, which begins as that of a row of empty values."""
    names = [f"{field.name}\0{type_name(field.type)}\0".encode() for field in batch.schema]
    template = b"".join(name + _VALID + _NOTHING + _NOTHING for name in names)
    whole = np.tile(np.frombuffer(template, np.uint8), (batch.num_rows, 1))
    at = 0
    for name, column in zip(names, batch.columns, strict=True):
        at += len(name) + 3 * SIZE
        _fill(whole[:, at - 3 * SIZE : at], column)
    view, width = whole.reshape(-1).data, len(template)
    return [xxhash.xxh3_128_intdigest(view[i : i + width]) for i in range(0, len(view), width)]


def _fill(digests: np.ndarray, column: pa.Array) -> None:
    """Writes what is not as in the template: digests of each row's validity, lengths and values, uint8 [rows, 48]."""
    kind, nulls = column.type, column.null_count
    if nulls == len(column):
        digests[:] = _of_null(kind)
        return
    if nulls:
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        digests[~valid, :SIZE] = np.frombuffer(_NULL, np.uint8)
    values = digests[:, 2 * SIZE :]
    if pa.types.is_fixed_size_list(kind) and not nulls:
        _fill_fixed(values, column.flatten().to_numpy().reshape(len(column), kind.list_size))
    elif pa.types.is_primitive(kind) and not pa.types.is_boolean(kind):
        filled = column.fill_null(0) if nulls else column
        _fill_fixed(values, filled.to_numpy()[:, None])
    else:
        data, offsets = _pieces(column)
        _fill_fixed(digests[:, SIZE : 2 * SIZE], np.diff(offsets).astype("<u8")[:, None])
        if len(data):
            values[:] = _table(_slices(data, offsets))


@cache
def _of_null(kind: pa.DataType) -> np.ndarray:
    """uint8 [48]: the three digests of a null of this type."""
    fixed = pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)
    lengths = b"" if fixed or pa.types.is_fixed_size_list(kind) else bytes(8)
    values = bytes(kind.bit_width // 8) if fixed else b""
    return np.frombuffer(b"".join([_NULL, *map(xxhash.xxh3_128_digest, (lengths, values))]), np.uint8)


def _pieces(column: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The elements of every row's value, one after the other, and where each row's begin: int64 [rows + 1]."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        return column.flatten().to_numpy(), np.concatenate([[0], np.cumsum(lengths)])
    if pa.types.is_fixed_size_binary(kind):
        column = column.cast(pa.binary())
    elif not (pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ValueError(f"a row of {kind} has no hash; shards have no such column")
    if column.null_count == len(column):
        return np.empty(0, np.uint8), np.zeros(len(column) + 1, np.int64)
    column = pc.fill_null(column.cast(pa.large_binary()), b"")
    offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
    return np.frombuffer(column.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _fill_fixed(digests: np.ndarray, values: np.ndarray) -> None:
    """Digests [rows, 16] of the bytes of values [rows, k]; one digest where all rows are alike."""
    size = values.shape[1]
    alike = bool((values == values[0]).all())
    flat = np.ascontiguousarray(values[:1] if alike else values).reshape(-1)
    digests[:] = _table(_slices(flat, np.arange(0, len(flat) + 1, size)))


def _slices(data: np.ndarray, offsets: np.ndarray) -> list[bytes]:
    """The digest of the elements between each two neighbouring offsets."""
    view, places = np.ascontiguousarray(data).data.cast("B"), (offsets * data.itemsize).tolist()
    return [xxhash.xxh3_128_digest(view[start:end]) for start, end in pairwise(places)]


def _table(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, SIZE)
