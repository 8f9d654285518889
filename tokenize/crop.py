"""Where a row's picture lies in its source: boxes in upright source pixels, and the same box at any size.

Frames are first scaled so that the short side is R (`squash`: both sides), then cut. A random box is drawn in
source pixels from (seed, source key, run, view), so it shows the same picture at every R.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from toto.tokenize.clip import Box, DecodeRequest, Size


def scaled_size(request: DecodeRequest, source: Size, resolution: int) -> Size:
    """Width and height to which whole frames are scaled before they are cut at `resolution`."""
    width, height = source
    short = min(source)
    if request.crop == "squash":
        return resolution, resolution
    return _scale(width, resolution, short), _scale(height, resolution, short)


def cut_size(request: DecodeRequest, source: Size, resolution: int) -> Size:
    """Width and height of what is cut out at `resolution`.

    `full` floors to whole patches at `request.resolution`; at another resolution it shows the same picture.
    """
    if request.crop != "full":
        return resolution, resolution
    width, height = scaled_size(request, source, request.resolution)
    whole = (width // request.patch * request.patch, height // request.patch * request.patch)
    return _scale(whole[0], resolution, request.resolution), _scale(whole[1], resolution, request.resolution)


def boxes(request: DecodeRequest, source: Size, run: int) -> list[Box]:
    """One box for each view of a run, in upright source pixels; mirrored views have those of the views they mirror."""
    return _boxes(request, source, run) * (1 + request.flips)


def _boxes(request: DecodeRequest, source: Size, run: int) -> list[Box]:
    width, height = source
    short = min(source)
    spare_x, spare_y = width - short, height - short
    match request.crop:
        case "squash":
            return [(0, 0, width, height)]
        case "full":
            return [_full_box(request, source)]
        case "center":
            return [(spare_x // 2, spare_y // 2, short, short)]
        case "three":
            # SlowFast's uniform_crop: the middle one rounds up
            return [((spare_x * view + 1) // 2, (spare_y * view + 1) // 2, short, short) for view in range(3)]
    drawn = (_fractions(request, run, view) for view in range(request.base_views))
    return [(int(x * (spare_x + 1)), int(y * (spare_y + 1)), short, short) for x, y in drawn]


def window(shape: Sequence[int], box: Box, source: Size, size: Size) -> tuple[slice, slice]:
    """The rows and columns of the box in a scaled frame of this shape [H, W, ...]; as many as `size` tells."""
    height, width = shape[:2]
    left = min(_scale(box[0], width, source[0]), width - size[0])
    top = min(_scale(box[1], height, source[1]), height - size[1])
    return slice(top, top + size[1]), slice(left, left + size[0])


def _full_box(request: DecodeRequest, source: Size) -> Box:
    scaled = scaled_size(request, source, request.resolution)
    size = cut_size(request, source, request.resolution)
    lefts = [_scale((big - small) // 2, pixels, big) for big, small, pixels in zip(scaled, size, source, strict=True)]
    sides = [
        min(_scale(small, pixels, big), pixels - left)
        for big, small, pixels, left in zip(scaled, size, source, lefts, strict=True)
    ]
    return lefts[0], lefts[1], sides[0], sides[1]


def _scale(value: int, to: int, of: int) -> int:
    """round(value · to / of), halves up, in integers."""
    return (2 * value * to + of) // (2 * of)


def _fractions(request: DecodeRequest, run: int, view: int) -> tuple[float, float]:
    """Two numbers in [0, 1), a function of (seed, key, run, view) alone: Philox's raw bits never change."""
    name = f"{request.seed}\0{request.key}\0{run}\0{view}".encode("utf-8", "surrogateescape")
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    x, y = np.random.Philox(key=key).random_raw(2)
    return (int(x) >> 11) * 2.0**-53, (int(y) >> 11) * 2.0**-53
