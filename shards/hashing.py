"""Two hashes, two jobs: sha256 of a file's bytes against damage, xxh3-128 of logical values as identity.

Arrow files have no checksums: a flipped bit reads back as good data. The content hash goes column by column over
values, never over file bytes, so it is the same for any zstd level, batch size or pyarrow version:

    column = xxh3-128(validity: one byte a row) + xxh3-128(lengths: u64 LE a row) + xxh3-128(values, little-endian)
    table  = xxh3-128 of, for each column in schema order: name, 0, type name, 0, the three digests

A null has validity 0, length 0 and, where the type has a fixed width, a value of zeros.
"""

import hashlib
import json
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


class ContentHasher:
    """Hashes the logical values of record batches of one schema; how they were cut into batches does not count.

    Raises ValueError for a column of lists of anything but numbers, or of structs.
    """

    def __init__(self, schema: pa.Schema) -> None:
        for field in schema:
            _refuse_nested(field)
        self._columns = [(field.name, _type_name(field.type), _ColumnHasher()) for field in schema]

    def update(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Adds the rows of a batch; a table is taken chunk by chunk."""
        for batch_ in batch.to_batches() if isinstance(batch, pa.Table) else [batch]:
            for (_, _, hasher), column in zip(self._columns, batch_.columns, strict=True):
                hasher.update(column)

    def hexdigest(self) -> str:
        """32 hex digits."""
        whole = xxhash.xxh3_128()
        for name, type_name, hasher in self._columns:
            whole.update(name.encode() + b"\0" + type_name.encode() + b"\0" + hasher.digests())
        return whole.hexdigest()


def content_hash(table: pa.RecordBatch | pa.Table) -> str:
    """The content hash of one table or batch."""
    hasher = ContentHasher(table.schema)
    hasher.update(table)
    return hasher.hexdigest()


class _ColumnHasher:
    def __init__(self) -> None:
        self.validity, self.lengths, self.values = (xxhash.xxh3_128() for _ in range(3))

    def digests(self) -> bytes:
        return self.validity.digest() + self.lengths.digest() + self.values.digest()

    def update(self, column: pa.Array) -> None:
        self.validity.update(_fixed_width(column.is_valid()))
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            self._binary(column)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths = pc.fill_null(pc.list_value_length(column), 0)
            self.lengths.update(_fixed_width(lengths.cast(pa.uint64())))
            self.values.update(_fixed_width(column.flatten()))
        elif pa.types.is_fixed_size_list(kind):
            self.values.update(_fixed_width(column.flatten()))
        elif pa.types.is_fixed_size_binary(kind):
            self._binary(column.cast(pa.binary()))
        else:
            self.values.update(_fixed_width(column))

    def _binary(self, column: pa.Array) -> None:
        column = pc.fill_null(column.cast(pa.large_binary()), b"")
        offsets = np.frombuffer(column.buffers()[1], np.int64)[column.offset : column.offset + len(column) + 1]
        self.lengths.update(np.diff(offsets).astype(np.uint64).data)
        data = column.buffers()[2]
        if data is not None and len(offsets):
            self.values.update(memoryview(data)[offsets[0] : offsets[-1]])


def _refuse_nested(field: pa.Field) -> None:
    kind = field.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if pa.types.is_nested(kind) and not (lists and pa.types.is_primitive(kind.value_type)):
        raise ValueError(f"column {field.name}: {kind} has no content hash; make it a table of its own, a row a value")


def _fixed_width(column: pa.Array) -> memoryview:
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    values = pc.fill_null(column, 0) if column.null_count else column
    return np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_type_name(kind.value_type)}>"
    if pa.types.is_fixed_size_list(kind):
        return f"list<{_type_name(kind.value_type)}>[{kind.list_size}]"
    if pa.types.is_fixed_size_binary(kind):
        return f"binary[{kind.byte_width}]"
    if pa.types.is_large_binary(kind):
        return "binary"
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))
