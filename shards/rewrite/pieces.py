"""Sources -> pieces -> units.

A piece is consecutive sources of one unit that go the same way and whose rows begin in the same record batch: reading
it takes that batch, and those behind it where its last source goes on. A unit is pieces of one split, in an order that
the command chose; the units of a split are even, by bytes before compression.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.hashing import json_sha256
from toto.shards.rewrite.catalog import STAYS, Catalog, Lines

PIECES = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),  # where it goes
        pa.field("dataset", pa.uint16(), nullable=False),  # number in settings.derived.from
        pa.field("from_unit", pa.string(), nullable=False),  # a unit of that dataset
        pa.field("first", pa.uint32(), nullable=False),  # line in that unit's per-source results
        pa.field("sources", pa.uint32(), nullable=False),  # lines
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)

UNIT = pa.field("unit", pa.string(), nullable=False)


def cut_pieces(catalog: Catalog, splits: Sequence[str]) -> pa.Table:
    """All pieces, in the order of the snapshots, columns PIECES; a source whose way is w goes to splits[w]."""
    tables = [_pieces_of(lines, splits) for lines in catalog.lines()]
    return pa.concat_tables([PIECES.empty_table(), *tables]).combine_chunks()


def with_units(lines: pa.Table, shard_bytes: int, identity: dict[str, Any]) -> pa.Table:
    """Adds the column `unit`: lines of a split into ⌈bytes / shard_bytes⌉ units of equal size, in their order.

    A unit's id begins the sha256 of `identity` and its lines: 16 hex digits.
    """
    parts = []
    for split in sorted(set(lines["split"].to_pylist())):
        chosen = lines.filter(pc.equal(lines["split"], split)).combine_chunks()
        for start, stop in even_parts(chosen["bytes"].to_numpy(), shard_bytes):
            part = chosen.slice(start, stop - start)
            parts.append(part.add_column(0, UNIT, pa.array([unit_id(part, identity)] * len(part), pa.string())))
    return pa.concat_tables([lines.schema.insert(0, UNIT).empty_table(), *parts])


def unit_id(lines: pa.Table, identity: dict[str, Any]) -> str:
    """The id of a unit that consists of these lines of a plan."""
    values = [list(line) for line in zip(*(column.to_pylist() for column in lines.columns), strict=True)]
    return json_sha256({**identity, "lines": values})[:16]


def even_parts(sizes: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of parts of about equal size, none empty, as few as keep each at about `most` or under."""
    total = int(sizes.sum())
    parts = max(1, -(-total // most))
    middles = np.cumsum(sizes) - sizes / 2
    number = np.minimum((middles * parts / max(total, 1)).astype(np.int64), parts - 1)
    edges = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(sizes)]
    yield from zip(edges, edges[1:], strict=False)


def _pieces_of(lines: Lines, splits: Sequence[str]) -> pa.Table:
    starts = np.cumsum(lines.rows) - lines.rows
    batches = np.searchsorted(np.cumsum(lines.batch_rows[:-1]), starts, side="right")
    cut = (np.diff(lines.ways) != 0) | (np.diff(batches) != 0)
    firsts = np.concatenate([[0], np.flatnonzero(cut) + 1]) if len(lines.rows) else np.empty(0, np.int64)
    counts = np.diff(np.append(firsts, len(lines.rows)))
    keep = lines.ways[firsts] != STAYS
    columns = {
        "split": [splits[way] for way in lines.ways[firsts][keep].tolist()],
        "dataset": np.full(int(keep.sum()), lines.dataset),
        "from_unit": [lines.unit] * int(keep.sum()),
        "first": firsts[keep],
        "sources": counts[keep],
        "rows": np.add.reduceat(lines.rows, firsts)[keep] if len(firsts) else [],
        "bytes": np.add.reduceat(lines.bytes, firsts)[keep] if len(firsts) else [],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in PIECES], schema=PIECES)
