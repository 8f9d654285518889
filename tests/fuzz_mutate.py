"""Ways to change a file of a dataset: blindly, by the numbers in its structure, or by writing other values well.

Every function takes a Random and the file's bytes and gives other bytes, or None where it does not fit the file.
"""

import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from toto.shards.parquet import parquet_bytes
from toto.shards.untrusted.structure import Structure

Mutation = Callable[[Random, bytes], bytes | None]
NUMBERS = (0, 1, -1, 2, 7, 8, 127, 255, 256, 65535, 1 << 20, (1 << 30), (1 << 31) - 1, -(1 << 31), 1 << 32, 1 << 40)
LARGE = (*NUMBERS, 1 << 62, (1 << 63) - 1, -(1 << 63), -8, -16)
JUNK: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1 << 31, 1 << 62, 1 << 70, 0.5, 1e308, "", "x", "../../etc/passwd", "/etc/passwd", "a\0b",
    "\ud800", [], {}, [[]], [None], {"path": "../x", "bytes": 1, "sha256": "0" * 64}, "x" * 70_000,
)  # fmt: skip


def flip(rng: Random, data: bytes) -> bytes:
    """Some bits."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng: Random, data: bytes) -> bytes:
    """A number of 1 to 8 bytes, often at a place that structures align to."""
    width, letter = rng.choice(((1, "b"), (2, "h"), (4, "i"), (4, "i"), (8, "q"), (8, "q")))
    place = rng.randrange(max(1, len(data) - width)) // width * width
    return _put(data, place, letter, rng.choice(LARGE))


def cut(rng: Random, data: bytes) -> bytes:
    """The file ends earlier, or a part in its middle is missing."""
    a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:a] if rng.random() < 0.5 else data[:a] + data[b:]


def splice(rng: Random, data: bytes) -> bytes:
    """A part of it stands somewhere else, or zeros do."""
    size = rng.choice((4, 8, 16, 24, 64, 512))
    a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    part = data[a : a + size] if rng.random() < 0.7 else bytes(size)
    return data[:b] + part + data[b + (size if rng.random() < 0.7 else 0) :]


def footer_number(rng: Random, data: bytes) -> bytes | None:
    """A number in the footer of a shard or a table, where what is at which place is told."""
    if data[:6] == b"ARROW1":
        (length,) = struct.unpack_from("<i", data, len(data) - 10)
        end = len(data) - 4
    elif data[:4] == b"PAR1":
        (length,) = struct.unpack_from("<i", data, len(data) - 8)
        end = len(data) - 4
    else:
        return None
    place = end - rng.randrange(1, max(2, length + 12))
    if data[:4] == b"PAR1":  # numbers of variable length: a byte at a time
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    width, letter = rng.choice(((2, "h"), (4, "i"), (8, "q")))
    return _put(data, place // width * width, letter, rng.choice(LARGE))


def message_number(rng: Random, data: bytes) -> bytes | None:
    """A number in the message of a batch: rows, nodes, buffers; or the length that a buffer claims."""
    shard = _structure(data)
    if shard is None or not shard.batches:
        return None
    block = shard.block(rng.randrange(shard.batches))
    width, letter = rng.choice(((2, "h"), (4, "i"), (8, "q"), (8, "q")))
    inside = rng.choice((block.message, block.message, block.size))
    value = rng.choice((*LARGE, rng.randrange(1 << 12), rng.randrange(1 << 24)))
    return _put(data, block.offset + rng.randrange(max(1, inside - width)) // width * width, letter, value)


def page_number(rng: Random, data: bytes) -> bytes | None:
    """A byte in the header of a page of a table: its sizes and numbers of values are told there, 7 bits a byte."""
    if data[:4] != b"PAR1":
        return None
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    column = group.column(rng.randrange(group.num_columns))
    place = rng.choice((column.data_page_offset, column.dictionary_page_offset or column.data_page_offset))
    place += rng.randrange(24)
    more = bytes(rng.choice((0xFF, 0x80, 0x7F, rng.randrange(256))) for _ in range(rng.choice((1, 1, 4))))
    return data[:place] + more + data[place + rng.choice((0, 1, len(more))) :]


def other_batches(rng: Random, data: bytes) -> bytes | None:
    """The shard's rows with other values, other types or another codec, written by Arrow itself."""
    if data[:6] != b"ARROW1":
        return None
    reader = pa.ipc.open_file(pa.BufferReader(data))
    batches = [reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches)]
    if not batches:
        return None
    schema = reader.schema
    if rng.random() < 0.4:
        schema = _other_schema(rng, schema)
    sink = pa.BufferOutputStream()
    codec = rng.choice(("zstd", "zstd", "zstd", None, "lz4"))
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for batch, metadata in batches:
            table = _other_values(rng, pa.Table.from_batches([batch])) if rng.random() < 0.5 else batch
            columns = [_as(table.column(i), field.type) for i, field in enumerate(schema) if i < table.num_columns]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema), custom_metadata=metadata)
    return sink.getvalue().to_pybytes()


def other_table(rng: Random, data: bytes) -> bytes | None:
    """A Parquet table with other values, types, rows or columns."""
    if data[:4] != b"PAR1":
        return None
    table = pq.read_table(pa.BufferReader(data), use_threads=False)
    chance = rng.random()
    if chance < 0.15:
        return parquet_bytes(table.drop_columns([rng.choice(table.column_names)]))
    if chance < 0.3:
        return parquet_bytes(
            table.take([rng.randrange(len(table)) for _ in range(rng.randrange(6))] if len(table) else [])
        )
    if chance < 0.4:
        return parquet_bytes(pa.concat_tables([table] * rng.choice((2, 3, 50))))
    return parquet_bytes(_other_values(rng, table))


def other_json(rng: Random, data: bytes) -> bytes | None:
    """A JSON file with another value somewhere, or one missing."""
    if data[:1] != b"{":
        return None
    value = json.loads(data)
    at = value
    while True:
        key = rng.choice(sorted(at)) if isinstance(at, dict) else rng.randrange(len(at))
        if isinstance(at[key], dict | list) and at[key] and rng.random() < 0.7:
            at = at[key]
            continue
        if rng.random() < 0.15:
            del at[key]
        elif isinstance(at[key], int) and rng.random() < 0.5:
            at[key] += rng.choice((-1, 1, 2, 1000))
        else:
            at[key] = rng.choice(JUNK)
        return json.dumps(value).encode()


def deep_json(rng: Random, data: bytes) -> bytes | None:
    """Brackets in brackets."""
    if data[:1] != b"{":
        return None
    depth = rng.choice((100, 900, 3000, 200_000))
    return data.rstrip()[:-1] + b', "x": ' + b"[" * depth + b"]" * depth + b"}"


MUTATIONS: tuple[tuple[Mutation, int], ...] = (
    (flip, 3), (overwrite, 3), (cut, 2), (splice, 2), (footer_number, 6), (message_number, 8), (other_batches, 5),
    (other_table, 6), (page_number, 4), (other_json, 6), (deep_json, 1),
)  # fmt: skip


def mutate(rng: Random, data: bytes) -> tuple[str, bytes]:
    """(name of the mutation, other bytes); some are done twice."""
    functions, weights = zip(*MUTATIONS, strict=True)
    while True:
        function = rng.choices(functions, weights)[0]
        try:
            changed = function(rng, data)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, NotImplementedError, IndexError):
            continue  # a change that Arrow or JSON cannot write
        if changed is not None and changed != data:
            return function.__name__, changed


def _put(data: bytes, place: int, letter: str, value: int) -> bytes:
    width = struct.calcsize(letter)
    part = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return data[:place] + part + data[place + width :]


def _structure(data: bytes) -> Structure | None:
    try:
        return Structure(lambda start, length: data[start : start + length], len(data))
    except ValueError:
        return None


def _other_schema(rng: Random, schema: pa.Schema) -> pa.Schema:
    i = rng.randrange(len(schema))
    field = schema.field(i)
    kinds = (pa.int64(), pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.string()), pa.binary())
    changed = rng.choice((
        field.with_type(rng.choice(kinds)), field.with_name("other"), field.with_nullable(not field.nullable),
        field.with_metadata({"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": b"x"}),
    ))  # fmt: skip
    return schema.set(i, changed)


def _other_values(rng: Random, table: pa.Table) -> pa.Table:
    """One column holds other values of its type."""
    i = rng.randrange(table.num_columns)
    field = table.schema.field(i)
    values = table.column(i).to_pylist()
    for _ in range(rng.choice((1, 1, len(values)))):
        if values:
            values[rng.randrange(len(values))] = _other(rng, field.type, values[0])
    return table.set_column(i, field, pa.array(values, field.type))


def _other(rng: Random, kind: pa.DataType, like: Any) -> Any:
    if pa.types.is_integer(kind):
        signed, bits = pa.types.is_signed_integer(kind), kind.bit_width
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return rng.choice((low, high, 0, 1, 2, rng.randint(low, high), min(high, 1 << 20)))
    if pa.types.is_string(kind):
        return rng.choice(("", "../../etc/passwd", "/etc/passwd", "x" * 3000, "\x1b[2J", "val", None, "shards/x.arrow"))
    if pa.types.is_map(kind):
        return rng.choice(([], [(1, 1 << 62)], [(0, 5)], [(4, 1)] * 3))
    if pa.types.is_fixed_size_binary(kind):
        return bytes(kind.byte_width)
    if pa.types.is_fixed_size_list(kind):
        return [_other(rng, kind.value_type, 0) for _ in range(kind.list_size)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [_other(rng, kind.value_type, 0) for _ in range(rng.choice((0, 1, 2, 70)))]
    return rng.choice((None, like, b"", b"x" * 12))


def _as(column: Any, kind: pa.DataType) -> pa.Array:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if column.type == kind:
        return column
    return column.cast(kind) if not pa.types.is_nested(kind) else pa.array([None] * len(column), kind)
