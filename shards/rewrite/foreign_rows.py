"""Codes of one source, from anywhere -> rows and a line of results, as a tokenizing run writes them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toto.shards import ids
from toto.shards.flags import Flag
from toto.shards.rewrite.foreign import Facts
from toto.shards.rewrite.npy import BadFile
from toto.shards.rewrite.ranged import Ranged
from toto.shards.schema import RowRecord, row_id

LONGEST_RUN = 65_535  # n_frames is a uint16
ROW_BYTES = 256 << 20  # of ids; a longer run is cut
AT_ONCE = 1 << 24  # codes that are checked at a time
GRID_TOLERANCE_US = 1_000


def video_rows(key: str, label: int | None, codes: np.ndarray | Ranged, facts: Facts) -> Iterator[RowRecord]:
    """Codes [n, h, w] -> one run, or several where it is too long for a row. They were checked before."""
    n, h, w = codes.shape
    dtype = ids.id_dtype(facts.vocab_size)
    length = max(1, min(LONGEST_RUN, ROW_BYTES // (h * w * dtype.itemsize)))
    for run, start in enumerate(range(0, n, length)):
        part = np.asarray(codes[start : start + length])
        index = facts.stride * np.arange(start, start + len(part), dtype=np.int64)
        step = 1 if len(part) == 1 else facts.stride
        yield _record(key, label, run, 0, part, facts, ids.KIND_VIDEO, int(index[0]), step, _times(index, facts.fps))


def image_rows(key: str, label: int | None, codes: np.ndarray, facts: Facts) -> Iterator[RowRecord]:
    """Codes [views, h, w] of one image -> a row for each view."""
    for view in range(len(codes)):
        mirrored = facts.flips and view >= len(codes) // 2
        flags = {"flags": int(Flag.MIRRORED) if mirrored else 0}
        part = codes[view : view + 1]
        yield _record(key, label, 0, view, part, facts, ids.KIND_IMAGE, 0, 1, {**_times(np.zeros(1), None), **flags})


def check_codes(codes: np.ndarray, vocab_size: int) -> None:
    """BadFile where a code is not in 0 … vocab_size - 1."""
    flat = codes.reshape(-1, order="A")  # as they lie there: nothing is copied
    for start in range(0, flat.size, AT_ONCE):
        part = flat[start : start + AT_ONCE]
        low, high = int(part.min()), int(part.max())
        if low < 0 or high >= vocab_size:
            raise BadFile("bad_codes", f"codes from {low} to {high}; 0 to {vocab_size - 1} are the tokenizer's")


@dataclass
class Written:
    """What a source gave: counts of its rows, which are not kept."""

    rows: int = 0
    tokens: int = 0
    run_lengths: list[int] = field(default_factory=list)
    grid: tuple[int, int] = (0, 0)

    def add(self, row: RowRecord) -> None:
        """Counts a row."""
        self.rows += 1
        self.tokens += len(row.tokens)
        self.grid = row.grid_h, row.grid_w
        if row.view == 0:
            self.run_lengths.append(row.n_frames)


def result(line: dict[str, Any], written: Written, facts: Facts) -> dict[str, Any]:
    """The result of a source that gave rows; `line` is its line in the plan."""
    frames, video, patch = sum(written.run_lengths), line["kind"] == "video", facts.tokenizer["patch"]
    decoded = (frames - 1) * facts.stride + 1 if video else 1
    return {
        **_told(line),
        **{"status": "ok", "width": written.grid[1] * patch, "height": written.grid[0] * patch},
        **dict.fromkeys(("fps", "rate"), facts.fps if video else None),
        **{"frames_decoded": decoded, "frames_kept": frames},
        "duration_s": decoded / facts.fps if facts.fps and video else None,
        **{"rows": written.rows, "tokens": written.tokens, "run_lengths": written.run_lengths},
    }


def quarantined(line: dict[str, Any], why: BadFile) -> dict[str, Any]:
    """The result of a source that gave none."""
    return {**_told(line), "status": "quarantined", "reason": why.reason, "detail": why.detail}


def _told(line: dict[str, Any]) -> dict[str, Any]:
    kept = {name: line[name] for name in ("key", "split", "kind", "label", "size")}
    counts = dict.fromkeys(("attempt", "frames_decoded", "frames_kept", "flags", "errors", "rows", "tokens"), 0)
    return {**kept, **counts, "run_lengths": []}


def _record(
    key: str,
    label: int | None,
    run: int,
    view: int,
    codes: np.ndarray,
    facts: Facts,
    kind: int,
    frame0: int,
    frame_step: int,
    times: dict[str, Any],
) -> RowRecord:
    n, h, w = codes.shape
    patch, dtype = facts.tokenizer["patch"], ids.id_dtype(facts.vocab_size)
    return RowRecord(
        row_id=row_id(key, run, view),
        source=key,
        run=run,
        view=view,
        kind=kind,
        n_frames=n,
        grid_h=h,
        grid_w=w,
        tokens=ids.to_ids(codes.astype(dtype), kind, dtype),  # a uint8 code and 4 more would not fit a uint8
        pixels=None,
        label=label,
        frame0=frame0,
        frame_step=frame_step,
        frame_index=None,
        crop=(0, 0, w * patch, h * patch),
        **times,
    )


def _times(index: np.ndarray, fps: float | None) -> dict[str, Any]:
    """The time columns of frames at a steady rate: an even grid where it stays within 1 ms of them."""
    if fps is None:
        return {"pts_us": None, "dt_us": None, "pts_list_us": None, "flags": 0}
    times = np.rint(index * (1e6 / fps)).astype(np.int64)
    step = round((int(times[-1]) - int(times[0])) / max(1, len(times) - 1))
    off = np.abs(times - (times[0] + step * np.arange(len(times))))
    even = bool((off <= GRID_TOLERANCE_US).all()) and step < 1 << 31
    return {
        **{"pts_us": int(times[0]), "dt_us": step if even else None},
        **{"pts_list_us": None if even else times, "flags": 0},
    }
