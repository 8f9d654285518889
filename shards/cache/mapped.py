"""A record batch as a file of the cache, and back: what a stream needs is found at once, the rest when asked for.

    Arrow stream: schema, batch (uncompressed) · facts: where ids and offsets lie, the grid, the highest id · xxh3-64
    of a table: Arrow stream · xxh3-64

Opening takes one mapping, one hash and two views. Arrow parses the stream only where somebody asks for other columns.
A file may be mapped long before it is looked at: the system reads it meanwhile.
"""

import os
import struct
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from toto.lazy import cached_property
from toto.shards.batch import Batch
from toto.shards.cache.space import touch

LAYOUT = "2"  # of these files; caches of other layouts are not looked at
_FACTS = struct.Struct("<8q")  # rows; ids: their place, number, bytes each; place of offsets; grid (-1: none); ids_end
_DIGEST = 8  # bytes of an xxh3-64
_LEAST = _FACTS.size + _DIGEST


class MappedBatch(Batch):
    """The batch of such a file; `data` is its mapping, which lives as long as any array of the batch."""

    def __init__(self, data: pa.Buffer) -> None:
        """ValueError where the facts are of no batch, or lead out of the file."""
        self._data = data
        facts = _FACTS.unpack_from(data, data.size - _DIGEST - _FACTS.size)
        self.rows, place, count, width, offsets, height, side, self.ids_end = facts
        if self.rows < 1 or count < 0 or width not in (2, 4):  # places and ends are NumPy's to check
            raise ValueError("facts of no batch")
        self.tokens = np.frombuffer(data, f"<u{width}", count, place)
        self.starts = np.frombuffer(data, np.int64, self.rows + 1, offsets)
        self.grid = None if height < 0 else (height, side)

    @cached_property
    def arrow(self) -> pa.RecordBatch:
        """All columns."""
        return _parsed(self._data)

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return int(self._data.size)


def file_of(batch: Batch) -> bytes:
    """The bytes of a batch's file."""
    sink = pa.BufferOutputStream()
    arrow = batch.arrow.replace_schema_metadata(None)
    with pa.ipc.new_stream(sink, arrow.schema) as writer:
        writer.write_batch(arrow)
    stream = sink.getvalue()
    tokens = _parsed(stream).column("tokens")
    values, offsets = (column.buffers()[1].address - stream.address for column in (tokens.values, tokens.offsets))
    width, (height, side) = tokens.type.value_type.bit_width // 8, batch.grid or (-1, -1)
    facts = _FACTS.pack(batch.rows, values, len(tokens.values), width, offsets, height, side, batch.ids_end)
    hasher = xxhash.xxh3_64(stream)
    hasher.update(facts)
    return b"".join((stream, facts, hasher.digest()))


class MappedFile(NamedTuple):
    """A file of the cache, mapped; nothing of it has been looked at."""

    path: str
    data: pa.Buffer
    before: tuple[int, int, int]  # inode, size, time of its last use in ns
    after: tuple[int, int, int]  # the same, now that it was asked for

    @property
    def is_whole(self) -> bool:
        """Whether it is as it was written."""
        data = memoryview(self.data)
        return len(data) >= _LEAST and xxhash.xxh3_64_digest(data[:-_DIGEST]) == data[-_DIGEST:].tobytes()


def map_file(path: str) -> MappedFile:
    """A file by its path; Arrow has the system begin to read what is not in memory. OSError where there is none."""
    with pa.memory_map(os.fsencode(path)) as file:  # as bytes: any name that a folder may have
        handle = file.fileno()
        state = os.fstat(handle)
        before = state.st_ino, state.st_size, state.st_mtime_ns
        return MappedFile(path, file.read_buffer(), before, (*before[:2], touch(handle, state)))


def file_of_table(table: pa.Table) -> bytes:
    """The bytes of a table's file: an Arrow stream, xxh3-64."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    stream = sink.getvalue()
    return b"".join((stream, xxhash.xxh3_64_digest(stream)))


def table_in(file: MappedFile) -> pa.Table:
    """The table of such a file, in its mapping."""
    return pa.ipc.open_stream(file.data[:-_DIGEST]).read_all()


def _parsed(stream: pa.Buffer) -> pa.RecordBatch:
    """The one batch of a stream; its schema is the same in all of a shard, and parsed once."""
    reader = pa.BufferReader(stream)
    schema = pa.ipc.read_message(reader).metadata.to_pybytes()
    return pa.ipc.read_record_batch(pa.ipc.read_message(reader), _schema(schema))


@lru_cache(maxsize=64)
def _schema(message: bytes) -> pa.Schema:
    prefix = b"\xff\xff\xff\xff" + len(message).to_bytes(4, "little")
    return pa.ipc.read_schema(pa.py_buffer(prefix + message))
