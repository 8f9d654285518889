"""Which decoded frames are kept: every N-th, those on screen at even times, or N spread over the whole.

Every function takes the decoded frames in order and gives the kept ones in order, perhaps one more than once.
All of them read their input to its end, so that the frames of the source are counted; who wants a few of the kept
frames only stops them (`most_frames`).
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np

from toto.tokenize.picture import Picture

ROUNDING_US = 1_000  # Matroska and FLV round times to 1 ms: a frame may come this late and still count
LONGEST_HOLD_US = 60_000_000  # a longer gap is a jump of the clock (a joined or damaged file), not a still
LONGEST_REORDER_US = 1_000_000  # a larger step back likewise; smaller ones are B-frames with wrong times
DEFAULT_RATE = 25.0  # frames per second of a stream that names neither times nor a rate


def by_stride(pictures: Iterable[Picture], stride: int) -> Iterator[Picture]:
    """Frames 0, stride, 2·stride, … by decoded index."""
    return (picture for picture in pictures if picture.index % stride == 0)


def by_rate(pictures: Iterable[Picture], fps: float, claimed_rate: float | None) -> Iterator[Picture]:
    """The frame on screen at 0, 1/fps, 2/fps, … seconds after the first one, by the `Clock`.

    The last frame stays for the time that `claimed_rate` (1/s) gives it.
    """
    clock = Clock(claimed_rate)
    step_us = Fraction(1_000_000) / Fraction(str(fps))
    due = 0
    shown: Picture | None = None
    for picture in pictures:
        now = clock.tick(picture.pts_us)
        while shown is not None and due * step_us + ROUNDING_US < now:
            yield shown
            due += 1
        shown = picture
    while shown is not None and due * step_us + ROUNDING_US < clock.elapsed_us + clock.frame_us:
        yield shown
        due += 1


def by_position(pictures: Iterable[Picture], positions: Sequence[int]) -> Iterator[Picture]:
    """The frames at ascending decoded indices, as often as an index stands there; the next one for one that is not
    there (a damaged picture in a folder of them)."""
    following = 0
    for picture in pictures:
        while following < len(positions) and positions[following] <= picture.index:
            yield picture
            following += 1


def spread(frames: int, wanted: int) -> list[int]:
    """`wanted` positions over `frames`, by CATER's protocol: round(linspace(0, frames - 1, wanted))."""
    return np.round(np.linspace(0, frames - 1, wanted)).astype(int).tolist()


class Clock:
    """Time since the first frame, in µs, never running backwards: the largest frame time so far.

    A frame without a time comes one frame duration after the one before it. Jumps of the file's clock
    (backwards by more than 1 s, forwards by more than 60 s) count as one frame duration.
    """

    def __init__(self, claimed_rate: float | None) -> None:
        self.frame_us = round(1_000_000 / (claimed_rate or DEFAULT_RATE))
        self.elapsed_us = 0
        self._latest_us: int | None = None

    def tick(self, pts_us: int | None) -> int:
        """The elapsed time at a frame with this time."""
        if self._latest_us is None:
            self._latest_us = pts_us or 0
            return self.elapsed_us
        if pts_us is None:
            pts_us = self._latest_us + self.frame_us
        gap = pts_us - self._latest_us
        if not -LONGEST_REORDER_US <= gap <= LONGEST_HOLD_US:
            gap = self.frame_us
            self._latest_us = pts_us
        self.elapsed_us += max(gap, 0)
        self._latest_us = max(self._latest_us, pts_us)
        return self.elapsed_us
