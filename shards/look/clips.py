"""Rows, windows or sources of a dataset -> clips: their frames decoded, beside the source's where they can be had.

--row 3 | --window 7 | --source KEY ─choose─▶ Pick ─Painter─▶ Clip (uint8 frames, times, captions)
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toto import tokenizers
from toto.errors import UserError
from toto.plain import counted
from toto.shards.dataset import Dataset, Row
from toto.shards.flags import Flag
from toto.shards.ids import KIND_VIDEO
from toto.shards.look.originals import Originals

FEW_ROWS = 6  # shown when nothing is asked for
MOST_ROWS = 24  # of one source
DECODE_FRAMES = 16  # at a time: bounds the memory of a tokenizer's decoder
DEFAULT_FPS = 8.0  # of clips whose files hold no times


@dataclass(frozen=True)
class Pick:
    """Frames of one row that are to be shown."""

    title: str  # what was asked for: "row 3", "window 7"
    row: Row
    positions: np.ndarray  # int64 [n], counted in the row

    @property
    def frame_index(self) -> np.ndarray:
        """int64 [n]: decoded frames of the source."""
        return self.row.frame_index[self.positions]

    @property
    def is_video(self) -> bool:
        """Whether the row is a run of a video; else it is an image."""
        return bool(self.row.record.kind == KIND_VIDEO)

    @property
    def fps(self) -> float:
        """Shown frames a second in the source's own time."""
        times = self.row.pts_us
        steps = np.diff(times[self.positions]) if times is not None else np.empty(0)
        steps = steps[steps > 0]
        return float(1e6 / np.median(steps)) if len(steps) else DEFAULT_FPS

    @property
    def caption(self) -> str:
        """One line: what, of which source, which frames."""
        record, index = self.row.record, self.frame_index
        which = f"frame {index[0]}" if len(index) == 1 else f"{len(index)} frames, {index[0]} to {index[-1]}"
        run = f"run {record.run}" + (f", view {record.view}" if record.view else "")
        label = "" if record.label is None else f" · label {record.label}"
        what = f"{which} ({run})" if self.is_video else "image"
        return f"{self.title} · {record.source} · {self.row.split}{label} · {what}"


@dataclass(frozen=True)
class Clip:
    """A pick with its pictures."""

    pick: Pick
    decoded: np.ndarray  # uint8 [n, H, W, 3]: from codes, or the stored pixels where there are no codes
    from_codes: bool
    beside: list[np.ndarray] | None  # n frames uint8 [h, w, 3] to compare with
    beside_label: str  # "source" or "pixels"

    @property
    def label(self) -> str:
        """What `decoded` is."""
        return "decoded" if self.from_codes else "pixels"


class Painter:
    """Turns picks of one dataset into clips; the tokenizer is loaded once."""

    def __init__(self, dataset: Dataset, originals: Originals) -> None:
        self._originals = originals
        self._has_codes = dataset.tokenizer["vocab_size"] > 0
        self._decode = decoder(dataset.tokenizer) if self._has_codes else None

    def clip(self, pick: Pick) -> Clip:
        """Decodes the frames of a pick; UserError for a row that holds neither codes nor pixels."""
        pixels = pick.row.pixels
        kept = None if pixels is None else pixels[pick.positions]
        if self._decode is not None:
            shown = self._decode(pick.row.codes[pick.positions])
        elif kept is not None:
            shown = kept
        else:
            raise UserError(f"{pick.title}: it holds neither codes nor pixels")
        record = pick.row.record
        beside = self._originals.frames(record.source, pick.frame_index.tolist(), record.crop)
        if beside is not None and record.flags & Flag.MIRRORED:
            beside = [frame[:, ::-1] for frame in beside]
        if beside is None and kept is not None and self._has_codes:
            return Clip(pick, shown, True, list(kept), "pixels")
        return Clip(pick, shown, self._has_codes, beside, "source")


def choose(
    dataset: Dataset,
    rows: Sequence[int],
    windows: Sequence[int],
    source: str | None,
    frames: int,
    stride: int,
) -> list[Pick]:
    """What the command line asks for, or a few rows spread over the dataset; UserError for what is not there."""
    if not len(dataset):
        raise UserError(f"{dataset.store.uri} has no rows")
    try:
        if source is not None:
            found = _rows_of(dataset, source)
            return [_whole(f"run {row.record.run}", row) for row in (found[i] for i in _spread(len(found), MOST_ROWS))]
        if windows:
            return [_window(dataset, i, frames, stride) for i in windows]
        return [_row(dataset, i) for i in rows or _spread(len(dataset), FEW_ROWS)]
    except ValueError as error:
        raise UserError(f"{dataset.store.uri}: {error}") from None


def _rows_of(dataset: Dataset, source: str) -> list[Row]:
    try:
        return dataset.frames(source)
    except ValueError as error:
        raise ValueError(f"{error}; keys are such as {dataset.row(0).source!r}") from None


def first(pick: Pick, most: int) -> Pick:
    """The pick cut to its first `most` frames."""
    return replace(pick, positions=pick.positions[:most])


def thinned(pick: Pick, most: int) -> Pick:
    """At most `most` frames of the pick, evenly spread, first and last among them."""
    return replace(pick, positions=pick.positions[_spread(len(pick.positions), most)])


def _whole(title: str, row: Row) -> Pick:
    return Pick(title, row, np.arange(row.record.n_frames))


def _row(dataset: Dataset, i: int) -> Pick:
    if i >= len(dataset):
        raise UserError(f"{dataset.store.uri} has no row {i:,}: they are 0 to {len(dataset) - 1:,}")
    return _whole(f"row {i}", dataset.row(i))


def _window(dataset: Dataset, i: int, frames: int, stride: int) -> Pick:
    count = dataset.windows(frames, stride)
    if not count:
        longest = dataset.longest_run()
        lacking = f"run of {counted(frames, 'frame')} at stride {stride}"
        raise UserError(f"{dataset.store.uri} has no {lacking} (longest: {longest})")
    if i >= count:
        raise UserError(
            f"{dataset.store.uri} has no window {i:,}: "
            f"those of {counted(frames, 'frame')} at stride {stride} are 0 to {count - 1:,}"
        )
    window = dataset.window(i, frames, stride)
    return Pick(f"window {i}", window.row, window.start + stride * np.arange(frames))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of 0 … count - 1, evenly spread."""
    return [int(i) for i in np.linspace(0, count - 1, min(count, most)).round()]


def decoder(spec: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """Codes int [n, h, w] -> uint8 [n, H, W, 3], by the tokenizer that a dataset or a checkpoint names."""
    try:
        tokenizer = tokenizers.load(spec)
    except ImportError as error:
        raise UserError(f"decoding `{spec['name']}` needs {error.name}: pip install 'toto-video[tokenize]'") from None

    def decode(codes: np.ndarray) -> np.ndarray:
        pictures = [tokenizer.decode(part) for part in _parts(codes)]
        return np.concatenate(pictures).transpose(0, 2, 3, 1)

    return decode


def _parts(codes: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(codes), DECODE_FRAMES):
        yield codes[start : start + DECODE_FRAMES]
