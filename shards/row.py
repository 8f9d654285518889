"""A row as a reader sees it, and windows of consecutive frames cut from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.shards import ids
from toto.shards.schema import RowRecord


@dataclass(frozen=True)
class Row:
    """One run of frames, or one image, with its tokens."""

    record: RowRecord
    split: str
    pixel_side: int | None = None  # the dataset's `keep_pixels`

    def __getattr__(self, name: str) -> Any:
        """The record's columns: source, run, view, kind, n_frames, tokens, label, crop, flags …"""
        if name.startswith("__") or name == "record":  # asked for while a copy is being made
            raise AttributeError(name)
        return getattr(self.record, name)

    @property
    def codes(self) -> np.ndarray:
        """int32 [n_frames, grid_h, grid_w]; empty where the dataset has pixels only."""
        return ids.to_codes(self.record.tokens, self.record.grid_h, self.record.grid_w)

    @property
    def pixels(self) -> np.ndarray | None:
        """uint8 [n_frames, H', W', 3] where the dataset keeps pixels; the shorter side is `keep_pixels`."""
        data, n = self.record.pixels, self.record.n_frames
        if data is None or self.pixel_side is None:
            return None
        short, long = self.pixel_side, len(data) // (3 * n * self.pixel_side)
        height, width = (long, short) if self.record.crop[3] > self.record.crop[2] else (short, long)
        return np.frombuffer(data, np.uint8).reshape(n, height, width, 3)

    @property
    def frame_index(self) -> np.ndarray:
        """int64 [n_frames]: which decoded frame of the source each frame is."""
        if self.record.frame_index is not None:
            return self.record.frame_index.astype(np.int64)
        return self.record.frame0 + self.record.frame_step * np.arange(self.record.n_frames, dtype=np.int64)

    @property
    def pts_us(self) -> np.ndarray | None:
        """int64 [n_frames], microseconds in the source's time; None where the file has no times."""
        record = self.record
        if record.pts_list_us is not None:
            return record.pts_list_us
        if record.pts_us is None:
            return None
        return record.pts_us + (record.dt_us or 0) * np.arange(record.n_frames, dtype=np.int64)


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
        return self.row.record.source

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
    cells = row.record.grid_h * row.record.grid_w
    last = start + (frames - 1) * stride
    if start < 0 or last >= row.record.n_frames:
        raise IndexError(f"frames {start}…{last} of a row with {row.record.n_frames}")
    grid = row.record.tokens[1:-1].reshape(row.record.n_frames, cells)[start : last + 1 : stride]
    tokens = np.empty(frames * cells + 2, row.record.tokens.dtype)
    tokens[0], tokens[-1] = row.record.tokens[0], row.record.tokens[-1]
    tokens[1:-1] = grid.reshape(-1)
    return Window(tokens, row, start, frames, stride)


def windows_in(lengths: np.ndarray, frames: int, stride: int, hop: int | None = None) -> np.ndarray:
    """int64: windows in runs of these lengths; each takes (frames - 1) * stride + 1 frames, the next starts `hop`
    later, without overlap (frames * stride) by default."""
    spare = lengths.astype(np.int64) - ((frames - 1) * stride + 1)
    return np.where(spare >= 0, spare // (hop or frames * stride) + 1, 0)
