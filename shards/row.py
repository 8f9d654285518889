"""A row as a reader sees it, and windows of consecutive frames cut from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.lazy import cached_property
from toto.shards import ids
from toto.shards.batch import Batch
from toto.shards.schema import RowRecord


@dataclass(frozen=True, eq=False)
class Row:
    """One run of frames, or one image, with its tokens: a place in a batch, whose columns are read when asked for."""

    batch: Batch
    index: int
    split: str
    pixel_side: int | None = None  # the dataset's `keep_pixels`

    def __getattr__(self, name: str) -> Any:
        """The columns of the row: source, run, view, kind, n_frames, tokens, label, crop, flags …"""
        if name.startswith("__") or name in ("batch", "index"):  # asked for while a copy is being made
            raise AttributeError(name)
        try:
            return self.batch.value(name, self.index)
        except KeyError:
            raise AttributeError(f"a row has no {name!r}") from None

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (self.batch.slice(self.index), 0, self.split, self.pixel_side)

    @property
    def tokens(self) -> np.ndarray:
        """uint16 or uint32 [2 + n_frames * grid_h * grid_w]: start id, codes shifted by 4, end id; read-only."""
        return self.batch.tokens[self.batch.starts[self.index] : self.batch.starts[self.index + 1]]

    @cached_property
    def record(self) -> RowRecord:
        """All columns at once, as they were written."""
        return self.batch.record(self.index)

    @property
    def codes(self) -> np.ndarray:
        """int32 [n_frames, grid_h, grid_w]; empty where the dataset has pixels only."""
        return ids.to_codes(self.tokens, self.grid_h, self.grid_w)

    @property
    def pixels(self) -> np.ndarray | None:
        """uint8 [n_frames, H', W', 3] where the dataset keeps pixels; the shorter side is `keep_pixels`.

        UserError where dataset.json tells another side than the shards have.
        """
        data, n = self.batch.pixels(self.index), self.n_frames
        if data is None or self.pixel_side is None:
            return None
        short = self.pixel_side
        long, rest = divmod(len(data), 3 * n * short) if short > 0 else (0, len(data))
        if rest:
            raise UserError(f"{self.source}, run {self.run}: pixels of another side than keep_pixels: {short}")
        crop = self.crop
        height, width = (long, short) if crop[3] > crop[2] else (short, long)
        return data.reshape(n, height, width, 3)

    @property
    def frame_index(self) -> np.ndarray:
        """int64 [n_frames]: which decoded frame of the source each frame is."""
        uneven = self.batch.value("frame_index", self.index)
        if uneven is not None:
            return uneven.astype(np.int64)
        return self.frame0 + self.frame_step * np.arange(self.n_frames, dtype=np.int64)

    @property
    def pts_us(self) -> np.ndarray | None:
        """int64 [n_frames], microseconds in the source's time; None where the file has no times."""
        if self.pts_list_us is not None:
            return self.pts_list_us
        first = self.batch.value("pts_us", self.index)
        if first is None:
            return None
        return first + (self.dt_us or 0) * np.arange(self.n_frames, dtype=np.int64)


@dataclass(frozen=True)
class Window:
    """T frames of one run: ids [start] + T*h*w + [end], and where they came from."""

    tokens: np.ndarray
    row: Row
    start: int  # first frame, counted in the row
    frames: int
    stride: int

    @property
    def source(self) -> str:
        """The source's key."""
        return str(self.row.source)

    @property
    def frame_index(self) -> np.ndarray:
        """int64 [T]: decoded frames of the source."""
        return self.row.frame_index[self.positions]

    @property
    def pts_us(self) -> np.ndarray | None:
        """int64 [T] microseconds, or None."""
        times = self.row.pts_us
        return None if times is None else times[self.positions]

    @property
    def positions(self) -> np.ndarray:
        """int64 [T]: the frames, counted in the row."""
        return self.start + self.stride * np.arange(self.frames)


def cut_window(row: Row, start: int, frames: int, stride: int = 1) -> Window:
    """Frames start, start + stride, … of a row as one sequence of ids; the row must hold them."""
    stored, n, cells = row.tokens, row.n_frames, row.grid_h * row.grid_w
    last = start + (frames - 1) * stride
    if start < 0 or last >= n:
        raise IndexError(f"frames {start}…{last} of a row with {n}")
    tokens = np.empty(frames * cells + 2, stored.dtype)
    tokens[0], tokens[-1] = stored[0], stored[-1]
    tokens[1:-1].reshape(frames, cells)[:] = stored[1:-1].reshape(n, cells)[start : last + 1 : stride]
    return Window(tokens, row, start, frames, stride)


def windows_in(lengths: np.ndarray, frames: int, stride: int, hop: int | None = None) -> np.ndarray:
    """int64: windows in runs of these lengths; each takes (frames - 1) * stride + 1 frames, the next starts `hop`
    later, without overlap (frames * stride) by default."""
    spare = lengths.astype(np.int64) - ((frames - 1) * stride + 1)
    return np.where(spare >= 0, spare // (hop or frames * stride) + 1, 0)
