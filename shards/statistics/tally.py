"""The counters of `stats`: codes of many frames at once -> sums that add up over tasks and processes.

batch ─▶ blocks ─gathered by grid up to 2^20 codes─▶ positions, pairs, stretches
               └─▶ per source: frames against the frame before
"""

from collections import Counter

import numpy as np

from toto.shards.batch import Batch
from toto.shards.ids import KIND_VIDEO
from toto.shards.statistics.block import Block, blocks
from toto.shards.statistics.contexts import RELATIONS, ContextCounts, Contexts, pairs_of
from toto.shards.statistics.per_source import PerSource

GATHERED_CODES = 1 << 20
POSITION_COUNTERS = 1 << 24  # of all positions together: 128 MiB
MAP_SIDE = 16  # positions of a frame from top to bottom at most; cells of finer grids share one


class Tally:
    """What was counted; `add` takes batches, `merge` another tally of other batches."""

    def __init__(self, contexts: Contexts, grid: tuple[int, int]) -> None:
        self._vocab = contexts.vocab_size
        self.map_shape = _map_shape(grid, self._vocab)
        self.positions = np.zeros((self.map_shape[0] * self.map_shape[1], self._vocab), np.int64)
        self.pairs = {name: ContextCounts(contexts) for name in RELATIONS}
        self.stretches = np.zeros(1, np.int64)  # [frames]: how many cells kept one code for so many frames
        self.grids: Counter[tuple[int, int]] = Counter()  # (h, w) -> frames
        self.rows = self.static = self.compared = 0
        self._waiting: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    @property
    def codes(self) -> np.ndarray:
        """int64 [V]: how often each code occurs."""
        return self.positions.sum(axis=0)

    def add(self, batch: Batch, split: str, sources: PerSource) -> None:
        """Counts one batch in, and tells `sources` of it. UserError for codes outside the vocabulary."""
        parts = []
        for block in blocks(batch, self._vocab):
            goes_on = ~block.first
            still = _still(block.codes, goes_on)
            parts.append((block, still))
            self.rows += len(block.rows)
            self.compared, self.static = self.compared + int(still[:, 0].sum()), self.static + int(still[:, 1].sum())
            self._gather(block, np.repeat(batch.kind[block.rows] == KIND_VIDEO, block.n_frames), goes_on)
        if parts:
            sources.add(batch, split, parts)

    def finish(self) -> "Tally":
        """Counts what was gathered."""
        for grid in list(self._waiting):
            self._count(grid)
        for counts in self.pairs.values():
            counts.finish()
        return self

    def merge(self, other: "Tally") -> None:
        """Adds a finished tally."""
        self.positions += other.positions
        for name, counts in self.pairs.items():
            counts.merge(other.pairs[name])
        self.stretches = _added(self.stretches, other.stretches)
        self.grids += other.grids
        self.rows, self.static = self.rows + other.rows, self.static + other.static
        self.compared += other.compared

    def _gather(self, block: Block, video: np.ndarray, goes_on: np.ndarray) -> None:
        grid = block.codes.shape[1:]
        self.grids[grid] += len(block.codes)
        waiting = self._waiting.setdefault(grid, [])
        waiting.append((block.codes, video, goes_on))
        if sum(codes.size for codes, _, _ in waiting) >= GATHERED_CODES:
            self._count(grid)

    def _count(self, grid: tuple[int, int]) -> None:
        codes, video, goes_on = (np.concatenate(column) for column in zip(*self._waiting.pop(grid), strict=True))
        for name, pair in pairs_of(codes, goes_on).items():
            self.pairs[name].add(*pair)
        across = np.ascontiguousarray(codes.reshape(len(codes), -1).T)  # [cells, F]: one cell through all frames
        for place, cell in zip(_map_places(grid, self.map_shape), across, strict=True):
            self.positions[place] += np.bincount(cell, minlength=self._vocab)
        self.stretches = _added(self.stretches, _stretches(across, video, goes_on))


def _still(codes: np.ndarray, goes_on: np.ndarray) -> np.ndarray:
    """int64 [F, 2]: how many codes of a frame have one in the frame before, and how many equal it."""
    flat = codes.reshape(len(codes), -1)
    still = np.zeros((len(codes), 2), np.int64)
    still[goes_on, 0] = flat.shape[1]
    still[1:, 1] = np.count_nonzero(flat[1:] == flat[:-1], axis=1)
    still[~goes_on, 1] = 0
    return still


def _stretches(across: np.ndarray, video: np.ndarray, goes_on: np.ndarray) -> np.ndarray:
    """int64: at n, how often a cell of a video shows one code for n frames, then another (or the run ends)."""
    if not video.all():
        across, goes_on = across[:, video], goes_on[video]
    if not across.size:
        return np.zeros(1, np.int64)
    begins = np.ones(across.shape, bool)
    np.not_equal(across[:, 1:], across[:, :-1], out=begins[:, 1:])
    begins |= ~goes_on
    starts = np.flatnonzero(begins)
    return np.bincount(np.diff(starts, append=across.size))


def _added(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Sum of two histograms, of which the shorter is 0 beyond its end."""
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    longer = longer.copy()
    longer[: len(shorter)] += shorter
    return longer


def _map_shape(grid: tuple[int, int], vocab_size: int) -> tuple[int, int]:
    """Rows and columns of the map of positions: the grid's own where that is not too fine."""
    side = MAP_SIDE
    while side > 1 and side * side * vocab_size > POSITION_COUNTERS:
        side //= 2
    return min(side, grid[0]), min(side, grid[1])


def _map_places(grid: tuple[int, int], shape: tuple[int, int]) -> list[int]:
    """Where on the map each cell of a grid is counted, in raster order."""
    rows, columns = (np.arange(n) * m // n for n, m in zip(grid, shape, strict=True))
    return (rows[:, None] * shape[1] + columns).reshape(-1).tolist()
