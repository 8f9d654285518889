"""What decoding takes and gives: a request, blocks of frames, the facts of the source, or a typed failure.

    DecodeRequest ──▶ Block, Block, … , SourceInfo        (or SourceError: the source is at fault)

A source's blocks come run by run; inside a run, by groups of at most 16 frames, the views of a group in a
row: (run 0, frames 0-15, views 0…K-1), (run 0, frames 16-31, views 0…K-1), …. Run k is whole when a block of
run k + 1, or the SourceInfo, arrives.
"""

from dataclasses import dataclass

import numpy as np

from toto.uris import shown

BLOCK_FRAMES = 16
CROPS = ("random", "center", "three", "full", "squash")
REASONS = (
    "missing", "empty", "no_video", "open_error", "no_frames", "decode_error",
    "timeout", "oom", "too_short", "unsupported", "crash",
)  # fmt: skip

Box = tuple[int, int, int, int]  # x, y, w, h in upright source pixels
Size = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class DecodeRequest:
    """One source and what is wanted of it. Raises ValueError for a combination that cannot be decoded."""

    key: str  # the name that random crops are keyed by
    uri: str
    kind: str  # "video" | "image"
    animated: bool  # a picture of two frames and more is a video; else its first frame counts
    stride: int | None  # one of stride (decoded frames), fps (1/s) and uniform (frames) is set, or `positions`
    fps: float | None
    uniform: int | None
    crop: str
    resolution: int  # R: pixels of the short side (of both sides for random, center, three and squash)
    patch: int  # `full` floors its sides to whole patches of so many pixels at `resolution`
    views: int
    run_frames: int | None  # kept frames of a run; None: the whole source
    seed: int
    pixels: int | None  # R': the same crops once more at this resolution
    codes: bool  # False: only `pixels` are wanted
    flips: bool = False  # the second half of the views shows the first half mirrored
    protocols: tuple[str, ...] = ()  # evaluation views whose frames are kept beside the stride grid
    positions: tuple[int, ...] | None = None  # these decoded frames and no others, ascending
    most_frames: int | None = None  # kept ones, after which the source is read no further; None: all

    def __post_init__(self) -> None:
        chosen = [value for value in (self.stride, self.fps, self.uniform) if value is not None]
        views = {"random": self.base_views, "three": 3}.get(self.crop, 1) * (1 + self.flips)
        if len(chosen) != (self.positions is None) or not all(value > 0 for value in chosen):
            raise ValueError(f"{self.key}: exactly one of stride, fps, uniform and positions must be set, and positive")
        if self.protocols and self.stride is None:
            raise ValueError(f"{self.key}: protocols stand beside a stride")
        if self.crop not in CROPS or self.kind not in ("video", "image"):
            raise ValueError(f"{self.key}: unknown crop {self.crop!r} or kind {self.kind!r}")
        if self.views != views or not 1 <= self.views <= 256:
            raise ValueError(f"{self.key}: {self.views} views of crop {self.crop!r}")
        if not 1 <= self.patch <= self.resolution or (self.run_frames is not None and self.run_frames < 1):
            raise ValueError(f"{self.key}: patch {self.patch} at {self.resolution} px, run {self.run_frames}")
        if not self.codes and self.pixels is None:
            raise ValueError(f"{self.key}: neither codes nor pixels are wanted")

    @property
    def base_views(self) -> int:
        """Views as they are upright: 0 … base_views - 1; with flips as many mirrored ones follow."""
        return self.views // 2 if self.flips else self.views


@dataclass(frozen=True)
class Block:
    """Consecutive kept frames, at most 16, of one run under one crop."""

    run: int
    view: int
    frames: np.ndarray | None  # uint8 RGB [n, H, W, 3] at `resolution`; planes [n, 3, H, W] lie in memory
    pixels: np.ndarray | None  # uint8 RGB [n, H', W', 3] at `pixels`
    index: np.ndarray  # int64 [n], position among the decoded frames
    pts_us: np.ndarray | None  # int64 [n] by the file's own clock; None where a frame has no time
    crop: Box  # of the picture as it is upright, also where it is shown mirrored
    mirrored: bool = False


@dataclass(frozen=True)
class SourceInfo:
    """The facts of a source whose every block was delivered."""

    kind: str  # "video" | "image"
    codec: str
    width: int  # upright, of the first frame
    height: int
    fps: float | None  # measured on the frame times; the container's claim where there are none
    rate: float | None  # what the container claims
    frames_decoded: int
    frames_kept: int
    duration_s: float | None
    flags: int  # bits of toto.shards.flags.Flag
    errors: int  # packets or pictures that did not decode
    detail: str  # the first error, or ""


class _Failure(Exception):
    """`reason`, in one word, and `detail`, in one line."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class SourceError(_Failure):
    """The source cannot be used, and trying again would not help. `reason` is one of REASONS."""


class DecoderDied(_Failure):
    """The decoder's process died: not yet the source's fault. `reason` is "crash" or "oom"."""


def one_line(error: BaseException) -> str:
    """An error as one line of at most 300 characters, for logs and reports, without the secrets that URLs hold."""
    text = shown(" ".join(str(error).split())) or type(error).__name__
    return f"{type(error).__name__}: {text}"[:300]
