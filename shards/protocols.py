"""Evaluation protocols: which frames of a video the clips of a test show, as index lists over its decoded frames.

    slowfast-10x3-16f4 = family, clips × crops, frames of a clip, source frames from one to the next
    (protocol, a video's frames, its rate) ─▶ indices [clips, frames] ─▶ what a row must store ─▶ positions in the row

Frames are coded one by one, so clips share them: a row stores each frame once, and a clip is a list of positions.
`stride` counts decoded frames; `slowfast` alone means frames of a video at 30 a second, and scales it for others.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.errors import UsageError

EXAMPLES = ("slowfast-10x3-16f4", "videomae-5x3-16f4", "jepa-8x3-16f4", "single-1x1-16f4")
SINGLE = "single-1x1-16f4"  # one clip in the middle: written for every dataset whose rows can give it
TRAIN = "train"
LONGEST_CLIP = 65_535
TARGET_RATE = 30.0  # SlowFast's DATA.TARGET_FPS
_NAME = re.compile(r"([a-z]+)-([1-9]\d{0,2})x([13])-([1-9]\d{0,4})f([1-9]\d{0,4})")


@dataclass(frozen=True)
class Protocol:
    """A named set of test clips."""

    family: str
    clips: int
    crops: int  # 1: the middle; 3: the two ends and the middle
    frames: int
    stride: int  # decoded frames; of slowfast: at 30 a second

    @property
    def name(self) -> str:
        """As `parse` reads it."""
        return f"{self.family}-{self.clips}x{self.crops}-{self.frames}f{self.stride}"

    def indices(self, count: int, rate: float | None = None) -> np.ndarray:
        """int64 [clips, frames]: decoded frames of a video of `count`, as the official sampler takes them.

        `rate`: frames per second that its container claims; None as 30.
        """
        if count < 1:
            raise ValueError(f"{self.name}: a video of {count} frames has no clips")
        return np.clip(_FAMILIES[self.family](self, count, rate or TARGET_RATE), 0, count - 1).astype(np.int64)

    def on_grid(self, stride: int) -> bool:
        """Whether every frame it shows is a multiple of `stride`, for videos of any length."""
        return stride == 1 or (self.family in _EVEN and self.stride % stride == 0)

    def views(self, crop: str) -> list[int]:
        """The stored views that hold its crops, in its order; none where a dataset of this `crop` has them not."""
        if crop == "three":
            return [0, 1, 2] if self.crops == 3 else [1]
        return [0] if self.crops == 1 and crop in ("center", "full", "squash") else []


def parse(name: str) -> Protocol:
    """The protocol of a name; UsageError for one that is not known."""
    found = _NAME.fullmatch(name)
    if found is None or found[1] not in _FAMILIES:
        raise UsageError(
            f"unknown protocol {name!r}; <family>-<clips>x<crops>-<frames>f<stride>, such as {', '.join(EXAMPLES)}"
        )
    protocol = Protocol(found[1], *map(int, found.groups()[1:]))
    if protocol.family == "single" and protocol.clips != 1:
        raise UsageError(f"protocol {name!r}: single has 1 clip")
    if protocol.family == "videomae" and protocol.clips == 1:
        raise UsageError(f"protocol {name!r}: videomae spreads 2 clips or more; single-1x1-… takes the middle one")
    if protocol.frames * protocol.stride > LONGEST_CLIP:
        raise UsageError(f"protocol {name!r}: a clip of more than {LONGEST_CLIP:,} source frames")
    return protocol


def stored_frames(count: int, rate: float | None, stride: int, protocols: Sequence[Protocol]) -> np.ndarray:
    """int64, ascending, each once: every `stride`-th of `count` decoded frames, and what the protocols show besides."""
    grid = np.arange(0, count, stride)
    return np.unique(np.concatenate([grid, *(protocol.indices(count, rate).reshape(-1) for protocol in protocols)]))


def beside_grid(settings: Mapping[str, Any], split: str) -> list[Protocol]:
    """The protocols of a dataset's settings whose frames the rows of a split hold beside the stride grid.

    None for `train`: windows are cut from its rows, and need one step from frame to frame.
    """
    if split == TRAIN:
        return []
    return [one for one in map(parse, settings.get("protocols", ())) if not one.on_grid(settings["stride"])]


def _slowfast(protocol: Protocol, count: int, rate: float) -> np.ndarray:
    """SlowFast's `decode` of a whole video at test time: k-th start = spare · k / clips, then float32 steps over clip
    size - 1, cut off; so stride 4 is 4.2 at 30 frames a second (PySlowFast, datasets/decoder.py)."""
    size = max(protocol.frames * protocol.stride * rate / TARGET_RATE, 1)
    spare = max(count - size, 0)
    starts = [spare * k / protocol.clips for k in range(protocol.clips)]
    return np.clip([_linspace(start, start + size - 1, protocol.frames) for start in starts], 0, count - 1)


def _videomae(protocol: Protocol, count: int, rate: float) -> np.ndarray:
    """VideoMAE's test mode (kinetics.py): windows over every stride-th frame, the last one repeated to fill a clip."""
    spare = max(_on_grid(protocol, count) - protocol.frames, 0)
    starts = [int(k * (spare / (protocol.clips - 1))) for k in range(protocol.clips)]
    return _window(protocol, count, starts)


def _single(protocol: Protocol, count: int, rate: float) -> np.ndarray:
    """The middle window over every stride-th frame, the last one repeated to fill it; ours."""
    return _window(protocol, count, [max(_on_grid(protocol, count) - protocol.frames, 0) // 2])


def _jepa(protocol: Protocol, count: int, rate: float) -> np.ndarray:
    """jepa's VideoDataset with overlapping segments, at its first place in each segment: the official evaluation
    draws that place at random."""
    size = protocol.frames * protocol.stride
    segment = count // protocol.clips
    if segment > size:
        inside = np.clip(np.linspace(0, size, protocol.frames), 0, size - 1).astype(np.int64)
        step = segment
    else:
        last = min(size, count) - 1
        spread = np.linspace(0, last, last // protocol.stride)
        filled = np.concatenate([spread, np.full(protocol.frames - len(spread), last)])
        inside = np.clip(filled, 0, max(last - 1, 0)).astype(np.int64)
        step = (count - size) // (protocol.clips - 1) if count > size else 0
    return inside + step * np.arange(protocol.clips)[:, None]


_FAMILIES = {"slowfast": _slowfast, "videomae": _videomae, "jepa": _jepa, "single": _single}
_EVEN = ("videomae", "single")  # their frames are multiples of the protocol's stride


def _on_grid(protocol: Protocol, count: int) -> int:
    return math.ceil(count / protocol.stride)


def _window(protocol: Protocol, count: int, starts: Sequence[int]) -> np.ndarray:
    """[clips, frames] of every stride-th frame from these places on."""
    places = np.array(starts)[:, None] + np.arange(protocol.frames)
    return np.minimum(places, _on_grid(protocol, count) - 1) * protocol.stride


def _linspace(start: float, end: float, steps: int) -> np.ndarray:
    """float32 [steps], as torch.linspace gives them where a CPU multiplies and adds in one rounding (AVX2, NEON): from
    both ends to the middle. Without that, 33 may come out as 32.999998, and be cut off to 32."""
    if steps == 1:
        return np.array([start], np.float32)
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(steps - 1))
    up = np.arange(steps)
    return np.where(up < steps // 2, first + step * up, last - step * (steps - 1 - up)).astype(np.float32)
