"""What each source's codes are like: how many differ, their entropy, and how much stands still; a table a task.

Rows of a source stand together, and sources are whole in a shard, so one that goes on in the next record batch is the
only thing that is carried over. A sample of batches gives what it saw of each source.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from toto.shards.batch import Batch
from toto.shards.ids import KIND_IMAGE
from toto.shards.statistics.block import Block
from toto.shards.statistics.contexts import entropy_bits

SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("codes", pa.int64(), nullable=False),
        pa.field("codes_used", pa.int64(), nullable=False),
        pa.field("entropy_bits", pa.float64(), nullable=False),  # of the source's own codes
        pa.field("compared", pa.int64(), nullable=False),  # codes that have one a frame before
        pa.field("static", pa.int64(), nullable=False),  # of those: equal to it
        pa.field("static_share", pa.float64()),
    ]
)


@dataclass
class _Open:
    """Sums of the source that the next batch may go on with."""

    name: str
    split: str
    label: int | None
    kind: str
    sums: np.ndarray  # int64 [5]: rows, frames, codes, compared, static
    seen: list[np.ndarray] = field(default_factory=list)  # codes, ascending
    counts: list[np.ndarray] = field(default_factory=list)


class PerSource:
    """Takes batches in order and gives a table of the finished sources."""

    def __init__(self, bits: int, labels: dict[str, int] | None) -> None:
        self._bits, self._labels = bits, labels
        self._open: _Open | None = None
        self._lines: list[dict[str, Any]] = []

    def add(self, batch: Batch, split: str, parts: list[tuple[Block, np.ndarray]]) -> None:
        """`parts`: blocks of the batch, each with int64 [F, 2]: codes compared with the frame before, and equal."""
        names = batch.sources
        new = np.array([i == 0 or names[i] != names[i - 1] for i in range(batch.rows)], bool)
        number = np.cumsum(new) - 1  # of the source of each row, in this batch
        sums = np.zeros((int(new.sum()), 5), np.int64)
        wide = np.uint32 if self._bits + len(sums).bit_length() <= 32 else np.uint64
        keys = []
        for block, still in parts:
            of_row = number[block.rows]
            per_row = np.add.reduceat(still, block.starts, axis=0)
            ones = np.ones_like(block.n_frames)
            np.add.at(sums, of_row, np.column_stack([ones, block.n_frames, block.n_frames * block.cells, per_row]))
            prefix = np.repeat(of_row.astype(wide) << self._bits, block.n_frames)
            keys.append((block.codes | prefix[:, None, None]).reshape(-1))
        self._close_finished(
            batch, split, np.flatnonzero(new), sums, *_counted(np.concatenate(keys), len(sums) << self._bits)
        )

    def table(self) -> pa.Table:
        """Every source seen since the last call; the open one is closed."""
        self._close()
        lines, self._lines = self._lines, []
        return pa.Table.from_pylist(lines, SCHEMA)

    def _close_finished(
        self, batch: Batch, split: str, rows: np.ndarray, sums: np.ndarray, keys: np.ndarray, counts: np.ndarray
    ) -> None:
        """`keys` ascend: the source's number in the batch above the code's bits."""
        owner, codes = keys >> self._bits, keys & ((1 << self._bits) - 1)
        edges = np.searchsorted(owner, np.arange(len(rows) + 1))
        for i, row in enumerate(rows.tolist()):
            name = batch.sources[row]
            if self._open is None or self._open.name != name:
                self._close()
                kind = "image" if batch.kind[row] == KIND_IMAGE else "video"
                self._open = _Open(name, split, self._label(batch, row, name), kind, np.zeros(5, np.int64))
            self._open.sums = self._open.sums + sums[i]
            self._open.seen.append(codes[edges[i] : edges[i + 1]])
            self._open.counts.append(counts[edges[i] : edges[i + 1]])

    def _label(self, batch: Batch, row: int, name: str) -> int | None:
        return self._labels.get(name) if self._labels is not None else batch.value("label", row)

    def _close(self) -> None:
        if self._open is None:
            return
        one, self._open = self._open, None
        counts = one.counts[0]
        if len(one.counts) > 1:
            _, place = np.unique(np.concatenate(one.seen), return_inverse=True)
            counts = np.bincount(place, np.concatenate(one.counts))
        rows, frames, codes, compared, static = one.sums.tolist()
        self._lines.append(
            {
                "source": one.name,
                "split": one.split,
                "label": one.label,
                "kind": one.kind,
                "rows": rows,
                "frames": frames,
                "codes": codes,
                "codes_used": len(counts),
                "entropy_bits": entropy_bits(counts),
                "compared": compared,
                "static": static,
                "static_share": static / compared if compared else None,
            }
        )


def _counted(keys: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The different keys, ascending and below `size`, and their counts; by a table where that is not much longer."""
    if size <= 2 * len(keys):
        counts = np.bincount(keys)
        different = np.flatnonzero(counts)
        return different, counts[different]
    keys.sort()
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[starts], np.diff(starts, append=len(keys))
