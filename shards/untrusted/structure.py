"""Is this an Arrow IPC file as format.md describes it? Asked of a stranger's bytes before pyarrow parses any of them.

    "ARROW1\\0\\0" · messages · footer (schema, blocks) · its length (int32) · "ARROW1"

1. the footer: its length, the schema's fields one by one, blocks that follow one another inside the file
2. of a block: message and body lengths, rows, field nodes, buffers that follow one another inside the body
3. of a buffer: the inflated length that it claims, against what its column needs for so many rows

Values are not looked at: pyarrow's `validate(full=True)` and the batch's hash do that, once the batch is inflated.
"""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.shards.untrusted.flatbuffers import Table
from toto.shards.untrusted.schema_layout import BYTES, FIXED, OFFSETS, VALIDITY, Layout, read_layout

MAX_FOOTER_BYTES = 16 << 20  # 24 bytes a batch: a shard of 300 GB
MAX_MESSAGE_BYTES = 64 << 10  # a batch's message takes 1.5 KB
MAX_FACTS_BYTES = 1 << 20  # of the schema's metadata
MAX_BATCH_ROWS = 1 << 18  # a batch of tokens holds at most 32,768 rows
MAX_BATCH_BYTES = 1 << 30  # inflated; more only where the file stores a quarter of it
MAX_BODY_BYTES = 4 << 30  # 65,535 frames of 128 × 128 pixels that do not compress take 3.2 GB
_MAGIC = b"ARROW1"
_BLOCK = np.dtype([("offset", "<i8"), ("message", "<i4"), ("pad", "<i4"), ("body", "<i8")])
_V5, _RECORD_BATCH, _ZSTD = 4, 3, 1
AS_IT_IS = -1  # of a buffer's inflated length: it is stored as it is
_PREFIX = struct.Struct("<q")


@dataclass(frozen=True)
class Block:
    """Where a batch lies in the file: a message of so many bytes, then its body."""

    offset: int
    message: int
    body: int

    @property
    def size(self) -> int:
        """Bytes of both."""
        return self.message + self.body


@dataclass(frozen=True)
class Message:
    """A batch's message, held against its schema: what its arrays are made of."""

    rows: int
    lengths: Sequence[int]  # of each node
    nulls: Sequence[int]
    buffers: list[tuple[int, int, int]]  # place in the batch's bytes, bytes stored, inflated length or AS_IT_IS
    xxh3: bytes  # the hash that the batch carries


class Structure:
    """The parts of one shard file of `size` bytes; `read(offset, length)` gives bytes or a memoryview of them.

    Raises ValueError, one line, where the file is not what the format says.
    """

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        footer, end = _footer(read, size)
        table = Table.root(footer)
        if table.number(0, "h") != _V5 or table.span(2, _BLOCK.itemsize)[1] or table.span(4, 4)[1]:
            raise ValueError("its footer is of another version, or has dictionaries or metadata of its own")
        schema = table.table(1)
        if schema is None:
            raise ValueError("its footer has no schema")
        self._layout: Layout = read_layout(schema)
        self.token_dtype: np.dtype = self._layout.token_dtype
        self.metadata: dict[str, Any] = _facts(schema)
        start, count = table.span(3, _BLOCK.itemsize)
        self._blocks = np.frombuffer(footer, _BLOCK, count, start)
        _check_blocks(self._blocks, end)

    @property
    def batches(self) -> int:
        """Record batches in the file."""
        return len(self._blocks)

    def block(self, i: int) -> Block:
        """Where batch i lies."""
        offset, message, _, body = self._blocks[i].tolist()
        return Block(offset, message, body)

    def check_batch(self, i: int, data: bytes) -> Message:
        """Holds batch i's message, and the lengths that its buffers claim, against its schema; `data` is its block."""
        block = self.block(i)
        batch, xxh3 = _batch_message(data[: block.message], block.body)
        rows, compressed = batch.number(0, "q"), _is_compressed(batch)
        if not 0 < rows <= MAX_BATCH_ROWS:
            raise ValueError(f"{rows} rows in a batch")
        if batch.span(4, 8)[1]:
            raise ValueError("buffers of a number of its own")
        lengths, nulls = self._layout.node_lengths(batch.numbers(1, 2), rows)
        spans = batch.numbers(2, 2)
        if len(spans) != 2 * len(self._layout.buffers):
            raise ValueError(f"{len(spans) // 2} buffers where {len(self._layout.buffers)} belong")
        most, total, free, found = max(MAX_BATCH_BYTES, 4 * block.body), 0, 0, []
        for (kind, node, width), offset, stored in zip(self._layout.buffers, spans[::2], spans[1::2], strict=True):
            if offset < free or offset % 8 or stored < 0 or offset + stored > block.body:
                raise ValueError("buffers outside of their batch, or one over the other")
            free, place, inflated = offset + stored, block.message + offset, AS_IT_IS
            if compressed and stored:
                inflated = _claimed(data, place, stored)
                place, stored = place + _PREFIX.size, stored - _PREFIX.size
            claimed = stored if inflated == AS_IT_IS else inflated
            _check_claim(kind, width, claimed, lengths[node], nulls[node])
            total += claimed
            if total > most:
                raise ValueError(f"a batch that would inflate to more than {most:,} bytes")
            found.append((place, stored, inflated))
        return Message(rows, lengths, nulls, found, xxh3)


def _claimed(data: bytes, at: int, stored: int) -> int:
    """What a compressed buffer claims to become; Arrow writes −1 before one that it left as it was."""
    if stored < _PREFIX.size:
        raise ValueError("a compressed buffer without its length")
    (claimed,) = _PREFIX.unpack_from(data, at)
    if claimed < AS_IT_IS:
        raise ValueError("a buffer of negative length")
    return int(claimed)


def _footer(read: Callable[[int, int], bytes], size: int) -> tuple[bytes, int]:
    """The footer's flatbuffer, and where it begins."""
    if size < 32 or bytes(read(0, 8)) != _MAGIC + b"\0\0":
        raise ValueError("it does not begin as an Arrow file does")
    length, magic = struct.unpack("<i6s", read(size - 10, 10))
    if magic != _MAGIC:
        raise ValueError("it does not end as an Arrow file does")
    if not 8 <= length <= min(size - 18, MAX_FOOTER_BYTES):
        raise ValueError(f"a footer of {length:,} bytes in a file of {size:,}")
    start = size - 10 - length
    return bytes(read(start, length)), start


def _facts(schema: Table) -> dict[str, Any]:
    texts = [entry.text(1) for entry in schema.tables(2, 1) if entry.text(0) == b"toto"]
    if not texts:
        raise ValueError("its schema has no metadata of toto alone")
    (text,) = texts
    if len(text) > MAX_FACTS_BYTES:
        raise ValueError(f"{len(text):,} bytes of metadata")
    try:
        facts = json.loads(text)
    except RecursionError:
        raise ValueError("its metadata is nested too deep") from None
    if not isinstance(facts, dict):
        raise ValueError("its metadata is no JSON object")
    return facts


def _check_blocks(blocks: np.ndarray, end: int) -> None:
    """Each behind the one before it, all between the magic and the footer."""
    offset, message, body = blocks["offset"], blocks["message"].astype(np.int64), blocks["body"]
    if len(blocks) and (
        (offset < 8).any()
        or (offset > end).any()
        or (message < 16).any()
        or (message > MAX_MESSAGE_BYTES).any()
        or (body < 0).any()
        or (body > MAX_BODY_BYTES).any()
        or ((offset | message | body) % 8).any()
    ):
        raise ValueError("a batch of impossible place or length")
    ends = offset + message + body
    if (ends > np.append(offset[1:], end)[: len(ends)]).any():
        raise ValueError("batches outside of the file, or one over the other")


def _batch_message(data: bytes, body: int) -> tuple[Table, bytes]:
    """The record batch of an encapsulated message, whose body has so many bytes, and the hash beside it."""
    mark, length = struct.unpack_from("<Ii", data)
    if mark != 0xFFFFFFFF or length != len(data) - 8:
        raise ValueError("a message of another length than the footer says")
    message = Table.root(data[8:])
    if message.number(0, "h") != _V5 or message.number(1, "B") != _RECORD_BATCH or message.number(3, "q") != body:
        raise ValueError("a message of another kind or length than the footer says")
    facts = [(entry.text(0), entry.text(1)) for entry in message.tables(4, 1)]
    if [(key, len(text)) for key, text in facts] != [(b"xxh3", 32)]:
        raise ValueError("a batch without its hash, or with other metadata")
    batch = message.table(2)
    if batch is None:
        raise ValueError("a message without its batch")
    return batch, facts[0][1]


def _is_compressed(batch: Table) -> bool:
    compression = batch.table(3)
    if compression is not None and (compression.number(0, "b") != _ZSTD or compression.number(1, "b")):
        raise ValueError("buffers compressed by something else than zstd")
    return compression is not None


def _check_claim(kind: int, width: int, claimed: int, length: int, nulls: int) -> None:
    """Whether a buffer has the bytes that `length` values need; Arrow may pad them to 64, and leaves out what says
    that no value is null, or where no value begins."""
    if kind == BYTES or (kind == VALIDITY and not claimed and not nulls) or (kind == OFFSETS and not claimed + length):
        return
    needed = {VALIDITY: (length + 7) // 8, FIXED: length * width, OFFSETS: (length + 1) * width}[kind]
    if not needed <= claimed <= needed + 63:
        raise ValueError(f"a buffer of {claimed:,} bytes where {needed:,} belong")
