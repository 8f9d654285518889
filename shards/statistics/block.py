"""A record batch -> its codes as arrays of frames: what every statistic counts over.

Start and end ids are left out, ids become codes, and codes outside the vocabulary are an error that names the place.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toto.errors import UserError
from toto.plain import counted
from toto.shards.batch import Batch
from toto.shards.ids import CODE_OFFSET


@dataclass(frozen=True)
class Block:
    """Rows of one grid in a batch, frame after frame."""

    codes: np.ndarray  # uint16 or uint32 [F, h, w]
    rows: np.ndarray  # int64 [R]: rows of the batch that hold these frames, ascending
    n_frames: np.ndarray  # int64 [R]; their sum is F

    @property
    def cells(self) -> int:
        """Codes of a frame."""
        return self.codes.shape[1] * self.codes.shape[2]

    @property
    def starts(self) -> np.ndarray:
        """int64 [R]: the first frame of each row."""
        return np.cumsum(self.n_frames) - self.n_frames

    @property
    def first(self) -> np.ndarray:
        """bool [F]: whether a frame begins a row, so that none comes before it."""
        first = np.zeros(len(self.codes), bool)
        first[self.starts] = True
        return first


def blocks(batch: Batch, vocab_size: int) -> Iterator[Block]:
    """The rows with codes, one block for each grid; UserError names the source of ids outside the vocabulary."""
    shapes = batch.grid_h.astype(np.int64) << 16 | batch.grid_w
    sizes = np.diff(batch.starts) - 2
    for shape in np.unique(shapes[sizes > 0]).tolist():
        rows = np.flatnonzero((shapes == shape) & (sizes > 0))
        yield _block(batch, rows, (shape >> 16, shape & 0xFFFF), vocab_size)


def _block(batch: Batch, rows: np.ndarray, grid: tuple[int, int], vocab_size: int) -> Block:
    n_frames = batch.n_frames[rows].astype(np.int64)
    spans = zip((batch.starts[rows] + 1).tolist(), (batch.starts[rows + 1] - 1).tolist(), strict=True)
    codes = np.concatenate([batch.tokens[start:end] for start, end in spans])
    codes -= CODE_OFFSET  # unsigned: the special ids become larger than any code
    if codes.size != n_frames.sum() * grid[0] * grid[1] or codes.max() >= vocab_size:
        raise UserError(f"{_culprit(batch, rows, grid, vocab_size)}; `toto-shards verify --deep` shows all damage")
    return Block(codes.reshape(-1, *grid), rows, n_frames)


def _culprit(batch: Batch, rows: np.ndarray, grid: tuple[int, int], vocab_size: int) -> str:
    """Which row it is that does not hold what it should."""
    for row in rows.tolist():
        ids = batch.tokens[batch.starts[row] + 1 : batch.starts[row + 1] - 1].astype(np.int64) - CODE_OFFSET
        n, where = int(batch.n_frames[row]), f"source {batch.sources[row]}, run {batch.run[row]}"
        if ids.size != n * grid[0] * grid[1]:
            return f"{where}: {counted(ids.size, 'code')} for {counted(n, 'frame')} of {grid[0]}×{grid[1]}"
        if ids.min() < 0 or ids.max() >= vocab_size:
            return f"{where}: codes {ids.min()} … {ids.max()}, the vocabulary has {vocab_size}"
    raise AssertionError("one row was wrong")
