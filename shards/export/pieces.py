"""What is exported: windows of videos, or whole rows, in stored order or shuffled by a seed.

    stored:    every row of the split -> its windows
    shuffled:  n-th piece -> keyed order -> shard, row, k-th window -> row -> window

The keyed order is the stream's: blocks of neighbours, shuffled within groups of blocks, so that memory stays flat.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from toto.shards.dataset import Dataset
from toto.shards.ids import KIND_VIDEO
from toto.shards.row import Row, Window, cut_window, windows_in
from toto.shards.streaming.order import Order, block_of

KNOWN_SHARDS = 64  # whose windows are kept counted up


@dataclass(frozen=True)
class Cut:
    """Windows of `frames` frames, `stride` stored frames apart; the next one starts `hop` frames of a window later."""

    frames: int
    stride: int = 1
    hop: int | None = None  # as many as `frames` when None

    @property
    def step(self) -> int:
        """Stored frames from one window's start to the next."""
        return (self.hop or self.frames) * self.stride

    def windows(self, lengths: np.ndarray) -> np.ndarray:
        """int64: windows in rows of these lengths."""
        return windows_in(lengths, self.frames, self.stride, self.step)


def count(dataset: Dataset, cut: Cut | None) -> int:
    """How many windows the dataset's split has, in all its views; rows where `cut` is None. No shard is opened."""
    if cut is None:
        return len(dataset)
    return int(dataset.window_counts(cut.frames, cut.stride, cut.step).sum())


def stored(dataset: Dataset, cut: Cut | None) -> Iterator[Window]:
    """Every piece as it lies in the shards; one record batch is in memory at a time."""
    for row in dataset.rows():
        if cut is None:
            yield whole(row)
        elif row.kind == KIND_VIDEO:
            starts = range(0, row.n_frames - (cut.frames - 1) * cut.stride, cut.step)
            yield from (cut_window(row, start, cut.frames, cut.stride) for start in starts)


def shuffled(dataset: Dataset, cut: Cut | None, seed: int) -> Iterator[Window]:
    """Every piece once, in an order that seed and number of pieces decide."""
    pieces = _Numbered(dataset, cut)
    if pieces.count:
        order = Order(pieces.count, block_of(pieces.typical_ids), seed, "export")
        yield from (pieces.at(order.at(n)[1]) for n in range(pieces.count))


def whole(row: Row) -> Window:
    """All frames of a row as one piece."""
    return cut_window(row, 0, row.n_frames)


class _Numbered:
    """The pieces by number, in stored order."""

    def __init__(self, dataset: Dataset, cut: Cut | None) -> None:
        self._dataset, self._cut = dataset, cut
        self.count = count(dataset, cut)
        self._ends = lru_cache(maxsize=KNOWN_SHARDS)(self._row_ends)
        if cut is not None:
            self._shard_ends = np.cumsum(dataset.window_counts(cut.frames, cut.stride, cut.step))

    @property
    def typical_ids(self) -> int:
        """Stored ids from one piece to the next, on average over the dataset."""
        totals = self._dataset.info["totals"]
        if self._cut is None:
            return int(totals["tokens"]) // int(totals["rows"])
        return self._cut.step * int(totals["tokens"]) // int(totals["frames"])

    def at(self, i: int) -> Window:
        if self._cut is None:
            return whole(self._dataset.row(i))
        shard, inside = _locate(self._shard_ends, i)
        row, k = _locate(self._ends(shard), inside)
        start = k * self._cut.step
        return cut_window(self._dataset.shard_row(shard, row), start, self._cut.frames, self._cut.stride)

    def _row_ends(self, shard: int) -> np.ndarray:
        assert self._cut is not None
        return np.cumsum(self._cut.windows(self._dataset.row_lengths(shard)))


def _locate(ends: np.ndarray, i: int) -> tuple[int, int]:
    part = int(np.searchsorted(ends, i, side="right"))
    return part, i - (int(ends[part - 1]) if part else 0)
