"""Blocks of one source -> its rows. Blocks come run by run, the views of a run interleaved; codes come back later.

Only one run is open at a time; closed ones wait for their codes in a `Flight`, bounded in bytes. Rows of a source
are known to be good only when the whole source was read, so they wait in a `Spool`, which goes to disk when it
grows: memory stays flat for a 2-hour video.
"""

import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from toto.errors import naming
from toto.shards import ids
from toto.shards.flags import Flag
from toto.shards.schema import RowRecord, row_id
from toto.tokenize.clip import Block
from toto.tokenize.encoder import Encoder
from toto.tokenize.flight import Flight

SPOOL_BYTES = 8 * 1024 * 1024
GRID_TOLERANCE_US = 1000


class Spool:
    """Rows of one source, in memory up to 8 MiB and in an anonymous temporary file beyond."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 (closed by close)
        self.rows = self.tokens = 0
        self.waiting = 0  # rows that are closed, but wait for their codes
        self.flags = 0
        self.run_lengths: list[int] = []

    def add(self, row: RowRecord) -> None:
        """Appends a row."""
        with naming(tempfile.gettempdir()):
            pickle.dump(row, self._file, protocol=pickle.HIGHEST_PROTOCOL)
        self.rows += 1
        self.tokens += len(row.tokens)
        self.flags |= row.flags & ~Flag.MIRRORED  # of this row, not of the source
        if row.view == 0:
            self.run_lengths.append(row.n_frames)

    def drain(self, flags: int) -> Iterator[RowRecord]:
        """The rows in order, each with these flags of the source added."""
        self._file.seek(0)
        for _ in range(self.rows):
            row = pickle.load(self._file)  # our own bytes, from an unnamed file of this process
            yield replace(row, flags=row.flags | flags)

    @property
    def closed(self) -> bool:
        """Whether nobody wants its rows any more."""
        return self._file.closed

    def close(self) -> None:
        """Gives memory and disk back."""
        self._file.close()


@dataclass
class _OpenRow:
    """A row that still grows."""

    crop: tuple[int, int, int, int]
    codes: list[Callable[[], np.ndarray]] = field(default_factory=list)
    pixels: list[np.ndarray] = field(default_factory=list)
    index: list[np.ndarray] = field(default_factory=list)
    pts_us: list[np.ndarray | None] = field(default_factory=list)
    mirrored: bool = False
    bytes: int = 0  # of frames and pixels


class RowBuilder:
    """Puts the blocks of one source together; `finish` closes the last run."""

    def __init__(
        self, source: str, label: int | None, spool: Spool, encoder: Encoder, flight: Flight, dtype: np.dtype
    ) -> None:
        self._source, self._label, self._spool = source, label, spool
        self._encoder, self._flight, self._dtype = encoder, flight, dtype
        self._run = 0
        self._open: dict[int, _OpenRow] = {}

    def add(self, block: Block) -> None:
        """Takes the next block; a block of a later run closes the run before it."""
        if block.run != self._run:
            self._close_run(ids.KIND_VIDEO)
            self._run = block.run
        row = self._open.setdefault(block.view, _OpenRow(block.crop, mirrored=block.mirrored))
        if block.frames is not None:
            row.codes.append(self._encoder.submit(block.frames))
            row.bytes += block.frames.nbytes
        if block.pixels is not None:
            row.pixels.append(block.pixels)
            row.bytes += block.pixels.nbytes
        row.index.append(block.index)
        row.pts_us.append(block.pts_us)

    def finish(self, kind: int) -> None:
        """Closes the last run; `kind` is the start id of its row."""
        self._close_run(kind)

    def _close_run(self, kind: int) -> None:
        for view, row in sorted(self._open.items()):
            self._spool.waiting += 1
            self._flight.add(row.bytes, partial(self._settle, self._run, view, row, kind))
        self._open.clear()

    def _settle(self, run: int, view: int, row: _OpenRow, kind: int) -> None:
        self._spool.waiting -= 1
        if not self._spool.closed:
            self._spool.add(self._record(run, view, row, kind))

    def _record(self, run: int, view: int, row: _OpenRow, kind: int) -> RowRecord:
        index = np.concatenate(row.index)
        codes = np.concatenate([wait() for wait in row.codes]) if row.codes else np.empty((len(index), 0, 0), np.int32)
        known = [part for part in row.pts_us if part is not None]
        times = np.concatenate(known) if len(known) == len(row.pts_us) else None
        step = frame_step(index)
        uneven = step is None or step >= 1 << 16
        columns = time_columns(times, index)
        columns["flags"] |= int(Flag.MIRRORED) if row.mirrored else 0
        return RowRecord(
            row_id=row_id(self._source, run, view),
            source=self._source,
            run=run,
            view=view,
            kind=kind,
            n_frames=len(index),
            grid_h=codes.shape[1],
            grid_w=codes.shape[2],
            tokens=ids.to_ids(codes, kind, self._dtype),
            pixels=np.concatenate(row.pixels).tobytes() if row.pixels else None,
            label=self._label,
            frame0=int(index[0]),
            frame_step=0 if uneven or step is None else step,
            frame_index=index.astype(np.int32) if uneven else None,
            crop=row.crop,
            **columns,
        )


def frame_step(index: np.ndarray) -> int | None:
    """The one step between decoded frame numbers (1 for a single frame); None where the steps are uneven."""
    if len(index) < 2:
        return 1
    steps = np.diff(index)
    return int(steps[0]) if (steps == steps[0]).all() else None


def time_columns(pts_us: np.ndarray | None, index: np.ndarray) -> dict[str, Any]:
    """pts_us, dt_us, pts_list_us and flags of a row: an even grid, or every time where one is off it by over 1 ms.

    The rate is variable where times do not follow the decoded frame numbers `index`: neither uneven sampling nor a
    whole-microsecond dt_us that drifts in a long row makes it so.
    """
    if pts_us is None:
        return {"pts_us": None, "dt_us": None, "pts_list_us": None, "flags": 0}
    n = len(pts_us)
    dt = round((int(pts_us[-1]) - int(pts_us[0])) / (n - 1)) if n > 1 else 0
    grid = pts_us[0] + dt * np.arange(n, dtype=np.int64)
    even = bool((np.abs(pts_us - grid) <= GRID_TOLERANCE_US).all()) and abs(dt) < 1 << 31
    steady = pts_us[0] + (pts_us[-1] - pts_us[0]) * (index - index[0]) / max(1, index[-1] - index[0])
    variable = bool((np.abs(pts_us - steady) > GRID_TOLERANCE_US).any())
    return {
        "pts_us": int(pts_us[0]),
        "dt_us": dt if even else None,
        "pts_list_us": None if even else pts_us,
        "flags": int(Flag.VARIABLE_RATE) if variable else 0,
    }
