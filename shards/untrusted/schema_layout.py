"""The schema in a shard's footer, read field by field -> which nodes and buffers each of its batches has.

Only the columns of `row_schema` pass, with their types and in their order; the ids may be uint16 or uint32. Arrow
counts a column, and the values of a column of lists, as a node each; a node has two or three buffers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from toto.plain import counted
from toto.shards.schema import row_schema
from toto.shards.untrusted.flatbuffers import Table

VALIDITY, FIXED, OFFSETS, BYTES = range(4)  # what a buffer holds
_NAMES = {2: "int", 5: "string", 12: "list", 15: "fixed_binary", 16: "fixed_list", 19: "large_binary", 21: "large_list"}
_LISTS = ("list", "large_list", "fixed_list")
_MOST_FIELDS = 64


@dataclass(frozen=True)
class Node:
    """A column, or the values of one of lists."""

    nullable: bool
    parent: int = -1  # the node of the lists that these are the values of
    each: int = 0  # values of each list; 0 where that is free


@dataclass(frozen=True)
class Layout:
    """Nodes in Arrow's order (lists before their values); of each buffer: what it holds, its node, bytes a value."""

    token_dtype: np.dtype
    nodes: tuple[Node, ...]
    buffers: tuple[tuple[int, int, int], ...]

    def node_lengths(self, found: Sequence[int], rows: int) -> tuple[Sequence[int], Sequence[int]]:
        """(values, nulls) of each node; `found` is what a batch of so many rows tells of them, in turn. ValueError."""
        if len(found) != 2 * len(self.nodes):
            raise ValueError(f"{len(found) // 2} field nodes where {len(self.nodes)} belong")
        lengths, nulls = found[::2], found[1::2]
        for node, length, null in zip(self.nodes, lengths, nulls, strict=True):
            if node.parent < 0 and length != rows:
                raise ValueError(f"a column of {counted(length, 'value')} in a batch of {counted(rows, 'row')}")
            if length < 0 or (node.each and length != node.each * lengths[node.parent]):
                raise ValueError(f"lists of {counted(length, 'value')} together")
            if not 0 <= null <= (length if node.nullable else 0):
                raise ValueError(f"{counted(null, 'null')} among {counted(length, 'value')}")
        return lengths, nulls


def read_layout(schema: Table) -> Layout:
    """The layout of the schema of a footer; ValueError where it is not one of the format's."""
    if schema.number(0, "h"):
        raise ValueError("its numbers are big-endian")
    found = [_read_field(field) for field in schema.tables(1, _MOST_FIELDS)]
    for dtype in (np.dtype(np.uint16), np.dtype(np.uint32)):
        fields, layout = _expected(dtype)
        if found == fields:
            return layout
    fields = _expected(np.dtype(np.uint16))[0]
    wrong = [name for name, *rest in fields if [name, *rest] not in [list(f) for f in found]]
    raise ValueError(f"its columns are not those of a shard ({', '.join(wrong) or 'too many, or their order'})")


def _read_field(field: Table, inside: bool = False) -> tuple[Any, ...]:
    """(name, nullable, type, its number, the same of its values) of a Field; there are no lists inside lists."""
    if field.table(4) is not None or field.span(6, 4)[1]:
        raise ValueError("a column with a dictionary, or with metadata, which may name a type of its own")
    kind = _NAMES.get(field.number(2, "B"), "unknown")
    children = [_read_field(child, True)[2:] for child in field.tables(5, int(kind in _LISTS and not inside))]
    details, number = field.table(3), 0
    if details is not None and kind == "int":
        number = details.number(0, "i") * (-1 if details.number(1, "B") else 1)
    elif details is not None and kind in ("fixed_binary", "fixed_list"):
        number = details.number(0, "i")
    return field.text(0).decode("utf-8", "replace"), bool(field.number(1, "B")), kind, number, *children


@cache
def _expected(token_dtype: np.dtype) -> tuple[list[tuple[Any, ...]], Layout]:
    """What `_read_field` gives for each column of a shard with such ids, and the layout."""
    fields: list[tuple[Any, ...]] = []
    nodes: list[Node] = []
    buffers: list[tuple[int, int, int]] = []
    for field in row_schema(token_dtype, {}):
        fields.append((field.name, field.nullable, *_described(field.type)))
        column = len(nodes)
        for node, kind in _nodes(field, column):
            buffers += [(what, len(nodes), width) for what, width in _buffers(kind)]
            nodes.append(node)
    return fields, Layout(token_dtype, tuple(nodes), tuple(buffers))


def _described(kind: pa.DataType) -> tuple[Any, ...]:
    if pa.types.is_integer(kind):
        return "int", -kind.bit_width if pa.types.is_signed_integer(kind) else kind.bit_width
    if pa.types.is_fixed_size_binary(kind):
        return "fixed_binary", kind.byte_width
    if pa.types.is_fixed_size_list(kind):
        return "fixed_list", kind.list_size, _described(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return "large_list" if pa.types.is_large_list(kind) else "list", 0, _described(kind.value_type)
    return str(kind), 0


def _nodes(field: pa.Field, column: int) -> Iterator[tuple[Node, pa.DataType]]:
    """A column's node, then that of its values."""
    yield Node(field.nullable), field.type
    if pa.types.is_nested(field.type):
        each = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 0
        yield Node(False, column, each), field.type.value_type


def _buffers(kind: pa.DataType) -> list[tuple[int, int]]:
    """(what it holds, bytes a value) of the buffers of a node of this type."""
    if pa.types.is_fixed_size_list(kind):
        return [(VALIDITY, 0)]
    if pa.types.is_list(kind):
        return [(VALIDITY, 0), (OFFSETS, 4)]
    if pa.types.is_large_list(kind):
        return [(VALIDITY, 0), (OFFSETS, 8)]
    if pa.types.is_string(kind) or pa.types.is_large_binary(kind):
        return [(VALIDITY, 0), (OFFSETS, 4 if pa.types.is_string(kind) else 8), (BYTES, 1)]
    return [(VALIDITY, 0), (FIXED, kind.byte_width)]
