"""A coded frame to small upright RGB: one swscale filter for videos and pictures, then quarter turns.

Pixels are square afterwards only if they were before: a declared sample aspect ratio is not applied.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from toto.tokenize.clip import Size, SourceError, one_line

Planes = list[np.ndarray]  # red, green and blue, uint8 [H, W] each

FILTER = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
_FLAGS = int(FILTER)  # the enum's own value takes ten times as long to get
FILTER_NAME = "swscale BILINEAR|ACCURATE_RND|BITEXACT|FULL_CHR_H_INT"

MAX_PIXELS = 178_956_970  # a frame; Pillow's own limit of what is no decompression bomb: 1 GiB / 6 bytes
MAX_ASPECT = 64  # long side / short side; at 128 px a wider frame would grow to more than 8,192 x 128
SHRINKS = 1.25  # rows of the source for one of the result, from which on a filter has three taps and more …
FEWEST_ROWS = 16  # … somewhere among so many rows of the result
_MATRIX = struct.Struct("=9i")  # FFmpeg's AV_FRAME_DATA_DISPLAYMATRIX: a b u / c d v / x y w
_TURN_TOLERANCE = 0.1  # a matrix whose small entries exceed this share of the large ones is no quarter turn


@dataclass(frozen=True)
class Orientation:
    """What makes a coded frame upright: mirror it left-right, then turn it counter-clockwise."""

    quarter_turns: int = 0
    mirrored: bool = False

    def upright(self, size: Size) -> Size:
        """Width and height after turning; its own inverse."""
        return size if self.quarter_turns % 2 == 0 else (size[1], size[0])

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """[H, W] as coded -> [H', W'] upright, a view; further axes stay."""
        if self.mirrored:
            picture = picture[:, ::-1]
        return np.rot90(picture, self.quarter_turns)

    def __bool__(self) -> bool:
        return self != Orientation()


def orientation(frame: av.VideoFrame) -> Orientation:
    """What the frame's display matrix asks for; nothing when it holds no turn by a multiple of 90°."""
    side_data = cast(Mapping[str, bytes], frame.side_data)  # PyAV's types know only motion vectors
    matrix = bytes(side_data.get("DISPLAYMATRIX", b""))
    return from_matrix(*_MATRIX.unpack(matrix)[:5]) if len(matrix) == _MATRIX.size else Orientation()


def from_matrix(a: int, b: int, _u: int, c: int, d: int) -> Orientation:
    """The orientation of FFmpeg's matrix: a pixel (x, y) goes to (a·x + c·y, b·x + d·y), y pointing down."""
    straight, crossed = (abs(a), abs(d)), (abs(b), abs(c))
    if min(straight) > 0 and max(crossed) <= _TURN_TOLERANCE * min(straight):
        mirrored = a * d < 0
        return Orientation(0 if d > 0 else 2, mirrored)
    if min(crossed) > 0 and max(straight) <= _TURN_TOLERANCE * min(crossed):
        mirrored = b * c > 0
        return Orientation(3 if c < 0 else 1, mirrored)
    return Orientation()


class Resizer:
    """Frames of any size and pixel format to one size of RGB; keep one per size, setting it up is slow.

    Where a picture shrinks, swscale is asked for planes: the same numbers as interleaved ones in under half the time,
    because it has vector code only for planes. Elsewhere (filters of one or two taps) it rounds the two differently,
    so interleaved ones are what it is asked for.
    """

    def __init__(self, size: Size, turned: Orientation) -> None:
        self._coded_size = turned.upright(size)
        self._turned = turned if turned else None
        height = self._coded_size[1]
        self._shrinks_from = SHRINKS * height if height >= FEWEST_ROWS else float("inf")  # rows of the source
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        """uint8 RGB [H, W, 3], upright. Raises as `planes`."""
        return np.stack(self.planes(frame), axis=2)

    def planes(self, frame: av.VideoFrame) -> Planes:
        """Red, green and blue, upright. Raises SourceError `unsupported` for a format without conversion."""
        width, height = self._coded_size
        shrinks = frame.height >= self._shrinks_from
        try:
            small = self._reformatter.reformat(
                frame, width, height, "gbrp" if shrinks else "rgb24", interpolation=_FLAGS, threads=1
            )
        except av.error.FFmpegError as error:
            if isinstance(error, MemoryError):
                raise
            raise SourceError("unsupported", f"pixel format {frame.format.name}: {one_line(error)}") from error
        if shrinks:
            green, blue, red = cast(tuple[memoryview, ...], small.planes)
            planes = [np.frombuffer(plane, np.uint8).reshape(height, -1)[:, :width] for plane in (red, green, blue)]
        else:
            planes = list(small.to_ndarray().transpose(2, 0, 1))
        return [self._turned.apply(plane) for plane in planes] if self._turned else planes


def check_size(width: int, height: int) -> None:
    """Raises SourceError `unsupported` for frames whose size alone would exhaust memory."""
    if width * height > MAX_PIXELS:
        raise SourceError("unsupported", f"{width} x {height} pixels are more than {MAX_PIXELS:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise SourceError("unsupported", f"{width} x {height} is narrower than 1 : {MAX_ASPECT}")
