"""The bytes of a checked batch -> Arrow's arrays over what its buffers inflate to.

    Message (structure.py): place and inflated length of each buffer ─▶ zstd ─▶ buffers ─▶ arrays, column by column

Arrow's own reader makes a zstd context for each of a batch's 30 buffers; here a thread keeps one.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import zstandard

from toto.shards.untrusted.structure import AS_IT_IS, Message


class _Inflater(threading.local):
    """A thread's own context."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor()

    def inflated(self, stored: memoryview, size: int) -> bytes:
        """What a frame holds; ValueError unless that is exactly so many bytes."""
        try:
            if zstandard.frame_content_size(stored) not in (size, -1):  # -1: the frame does not say
                raise ValueError("a buffer of another length than it claims")
            data = self._context.decompress(stored, max_output_size=size, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise ValueError(f"zstd: {error}") from None
        if len(data) != size:
            raise ValueError("a buffer of another length than it claims")
        return data


@dataclass(frozen=True)
class _Kind:
    """A type, how many buffers of its own it has, and that of its values where it is one of lists."""

    arrow: pa.DataType
    buffers: int
    values: "_Kind | None" = None

    @classmethod
    def of(cls, kind: pa.DataType) -> "_Kind":
        if pa.types.is_nested(kind):
            return cls(kind, 1 if pa.types.is_fixed_size_list(kind) else 2, cls.of(kind.value_type))
        return cls(kind, 3 if pa.types.is_string(kind) or pa.types.is_large_binary(kind) else 2)


class Inflate:
    """Makes the batches of one schema; several threads may call it."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema.remove_metadata()
        self._kinds = [_Kind.of(field.type) for field in schema]

    def __call__(self, message: Message, data: bytes) -> pa.RecordBatch:
        """The batch of these bytes; ValueError, or pa.ArrowException, where they are damaged."""
        whole, view = pa.py_buffer(data), memoryview(data)
        buffers = (_buffer(whole, view, *span) for span in message.buffers)
        nodes = iter(zip(message.lengths, message.nulls, strict=True))
        return pa.RecordBatch.from_arrays([_array(kind, nodes, buffers) for kind in self._kinds], schema=self._schema)


_inflater = _Inflater()


def _buffer(whole: pa.Buffer, view: memoryview, place: int, stored: int, inflated: int) -> pa.Buffer:
    if inflated == AS_IT_IS:
        return whole.slice(place, stored)
    return pa.py_buffer(_inflater.inflated(view[place : place + stored], inflated))


def _array(kind: _Kind, nodes: Iterator[tuple[int, int]], buffers: Iterator[pa.Buffer]) -> pa.Array:
    length, nulls = next(nodes)
    own: list[pa.Buffer | None] = [next(buffers) for _ in range(kind.buffers)]
    if not nulls:
        own[0] = None  # Arrow takes it for what says which are null, whatever the node says
    children = None if kind.values is None else [_array(kind.values, nodes, buffers)]
    return pa.Array.from_buffers(kind.arrow, length, own, nulls, 0, children)
