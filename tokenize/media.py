"""Pixels from and to media files at full size, for viewers: the way back from a row to its source.

Decoding runs in this process: use it on sources that a dataset already holds.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from toto.errors import UserError
from toto.tokenize.clip import Box, SourceError
from toto.tokenize.decode import open_pictures
from toto.tokenize.decode_image import ImagePictures
from toto.tokenize.input_file import open_binary
from toto.tokenize.part import parse_part
from toto.tokenize.picture import Picture
from toto.tokenize.resize import Resizer, orientation
from toto.tokenize.sampling import LONGEST_REORDER_US
from toto.tokenize.sources.names import kind_of
from toto.tokenize.transient import TransientError


def frames(source: str, times: Sequence[int] | Sequence[float], crop: Box | None = None) -> list[np.ndarray]:
    """The frames of a source as uint8 RGB [H, W, 3], upright, one for each entry of `times`.

    `source`: a path or fsspec URI, or what `find` gave. `times`: ints are decoded-frame indices (a row's frame_index);
    floats are seconds by the file's own clock (a row's pts_us / 1e6), for the frame on screen then. `crop`: x, y, w, h
    in upright source pixels (a row's crop). Raises UserError for a source or a time that is not there.
    """
    if not times:
        return []
    choose = _at_indices if isinstance(times[0], int | np.integer) else _at_seconds
    try:
        with open_pictures(source, _kind(source), animated=True) as pictures:
            found = choose(pictures, times)
    except (SourceError, TransientError) as error:
        raise UserError(f"{source}: {error}") from error
    if len(found) < len(set(times)):
        missing = sorted(set(times) - set(found))[0]
        raise UserError(f"{source}: no frame {missing}; is it still the file that was tokenized?")
    return [_cropped(found[time], crop) for time in times]


def write_video(frames: Iterable[np.ndarray], path: str | Path, fps: float) -> None:
    """Writes uint8 RGB frames [H, W, 3] of one size as H.264 in MP4; odd sides get their last pixel twice.

    The file appears whole or not at all. Raises UserError when there is no frame.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        _write(iter(frames), partial, fps)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _kind(source: str) -> str:
    """ "video" or "image": by the name; of a part of a tar, which has none, by what Pillow makes of it."""
    if parse_part(source) is None:
        return kind_of(source)
    with open_binary(source) as file:
        try:
            ImagePictures(file, animated=True)
        except SourceError:
            return "video"
    return "image"


def _at_indices(pictures: Iterable[Picture], indices: Sequence[float]) -> dict[float, np.ndarray]:
    wanted = set(indices)
    last = max(wanted)
    found: dict[float, np.ndarray] = {}
    for picture in pictures:
        if picture.index in wanted:
            found[picture.index] = _upright(picture)
        if picture.index >= last:
            break
    return found


def _at_seconds(pictures: Iterable[Picture], seconds: Sequence[float]) -> dict[float, np.ndarray]:
    """For each time the frame with the largest time up to it; times may come a little out of order."""
    best: dict[float, Picture] = {}
    latest_us = round(max(seconds) * 1e6)
    for picture in pictures:
        if picture.pts_us is None:
            continue
        for wanted in seconds:
            nearest = best.get(wanted)
            in_time = picture.pts_us <= round(wanted * 1e6)
            if in_time and (nearest is None or (nearest.pts_us or 0) <= picture.pts_us):
                best[wanted] = picture
        if picture.pts_us > latest_us + LONGEST_REORDER_US:
            break
    return {wanted: _upright(picture) for wanted, picture in best.items()}


def _upright(picture: Picture) -> np.ndarray:
    """uint8 RGB [H, W, 3] at full size."""
    frame = picture.frame
    assert frame is not None  # every frame is decoded here
    turned = orientation(frame)
    size = turned.upright((frame.width, frame.height))
    return np.ascontiguousarray(Resizer(size, turned)(frame))


def _cropped(picture: np.ndarray, crop: Box | None) -> np.ndarray:
    if crop is None:
        return picture
    x, y, width, height = crop
    return picture[y : y + height, x : x + width]


def _write(frames: Iterator[np.ndarray], path: Path, fps: float) -> None:
    first = next(frames, None)
    if first is None:
        raise UserError(f"{path}: no frame to write")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
        stream.pix_fmt = "yuv420p"  # what every browser plays; it needs even sides
        for picture in chain([first], frames):
            pad = [(0, side % 2) for side in picture.shape[:2]]
            even = np.pad(picture, (*pad, (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        container.mux(stream.encode())
