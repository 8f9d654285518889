"""One source to blocks of cropped frames; runs inside the decoder's child process.

    open ─▶ every frame ─▶ sampling: the kept ones ─▶ resize ─▶ runs ─▶ crop ─▶ blocks of ≤ 16

Everything streams: memory holds 16 + 15 small frames, and 16 MiB of large ones, whatever the length. Only kept frames
are converted, and where that changes nothing else, frames that are not kept are not decoded.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from toto.shards.protocols import parse, stored_frames
from toto.tokenize.clip import BLOCK_FRAMES, Block, Box, DecodeRequest, Size, SourceInfo
from toto.tokenize.container import open_video
from toto.tokenize.crop import boxes, cut_size, scaled_size, window
from toto.tokenize.decode_image import ImagePictures
from toto.tokenize.decode_video import VideoPictures
from toto.tokenize.frames_folder import FolderPictures, folder_of
from toto.tokenize.h264_parameters import NotPlain
from toto.tokenize.input_file import check, open_binary
from toto.tokenize.picture import Picture, Pictures
from toto.tokenize.resize import Planes, Resizer
from toto.tokenize.runs import cut_runs, groups
from toto.tokenize.sampling import by_position, by_rate, by_stride, spread
from toto.tokenize.skipping import Wanted
from toto.tokenize.tally import Tally


def decode(request: DecodeRequest, on_frame: Callable[[], None] = lambda: None) -> Iterator[Block | SourceInfo]:
    """The blocks of a source, then its SourceInfo; the same every time.

    `on_frame` is called for every frame.
    Raises SourceError (also after blocks were given), TransientError, MemoryError.
    """
    given = 0
    try:
        for part in _decode(request, on_frame, skips=True):
            yield part
            given += 1
        return
    except NotPlain:
        pass  # and left behind: its traceback holds the first decoder with its frames
    yield from islice(_decode(request, on_frame, skips=False), given, None)


def _decode(request: DecodeRequest, on_frame: Callable[[], None], skips: bool) -> Iterator[Block | SourceInfo]:
    """`skips`: frames that are not wanted may be left undecoded. Raises NotPlain then, after right blocks."""
    positions = _positions(request, on_frame, skips)
    wanted = _wanted(request, positions) if skips else None
    with open_pictures(request.uri, request.kind, request.animated, wanted) as pictures:
        tally = Tally(pictures, on_frame)
        kept = tally.kept(islice(_sampled(request, pictures, tally.decoded(), positions), request.most_frames))
        yield from _blocks(request, kept, tally)
        yield _told(request, tally.info())


@contextmanager
def open_pictures(uri: str, kind: str, animated: bool, wanted: Wanted | None = None) -> Iterator[Pictures]:
    """The frames of a "video" or "image" source. Raises SourceError or TransientError.

    `wanted`: which frames of a video are; see VideoPictures.
    """
    if folder_of(uri) is not None:
        yield FolderPictures(uri)
        return
    check(uri)
    container = None if kind == "image" else open_video(uri)
    if container is None:
        with open_binary(uri) as file:
            yield ImagePictures(file, animated)
    else:
        with closing(container):
            yield VideoPictures(container, uri, wanted)


def _positions(request: DecodeRequest, on_frame: Callable[[], None], skips: bool) -> Sequence[int] | None:
    """The frames to keep, where they are known one by one; None where the rule needs no count."""
    if request.uniform is not None:
        return spread(_counted(request, on_frame, skips)[0], request.uniform)
    if request.protocols and request.stride is not None:
        protocols = [parse(name) for name in request.protocols]
        count, rate = _counted(request, on_frame, skips)
        return stored_frames(count, rate, request.stride, protocols).tolist()
    return request.positions


def _counted(request: DecodeRequest, on_frame: Callable[[], None], skips: bool) -> tuple[int, float | None]:
    """How many frames decode, and the claimed rate: a pass of its own, headers do not tell how many."""
    wanted = (lambda index: False) if skips else None
    with open_pictures(request.uri, request.kind, request.animated, wanted) as pictures:
        return sum(1 for _ in Tally(pictures, on_frame).decoded()), pictures.rate


def _wanted(request: DecodeRequest, positions: Sequence[int] | None) -> Wanted | None:
    """Which frames are kept, by index; None where all are, or where that depends on their times."""
    if positions is not None:
        return frozenset(positions).__contains__
    stride = request.stride or 1
    return (lambda index: index % stride == 0) if stride > 1 else None


def _sampled(
    request: DecodeRequest, pictures: Pictures, decoded: Iterator[Picture], positions: Sequence[int] | None
) -> Iterator[Picture]:
    if pictures.kind == "image":
        return decoded
    if positions is not None:
        return by_position(decoded, positions)
    if request.stride is not None:
        return by_stride(decoded, request.stride)
    return by_rate(decoded, request.fps or 0, pictures.rate)


def _told(request: DecodeRequest, info: SourceInfo) -> SourceInfo:
    """The facts; frames that were asked for by number and are not there are named, where no error is."""
    missing = len(request.positions or ()) - info.frames_kept
    if request.positions is None or missing <= 0 or info.detail:
        return info
    return replace(info, detail=f"{missing} of {len(request.positions)} wanted frames lie beyond the last one")


@dataclass(frozen=True, slots=True)
class _Kept:
    """A kept frame, upright and scaled, not yet cut."""

    index: int
    pts_us: int | None
    small: Planes | None  # scaled for `resolution`
    pixels: Planes | None  # scaled for `pixels`


def _blocks(request: DecodeRequest, kept: Iterable[Picture], tally: Tally) -> Iterator[Block]:
    shaper = _Shaper(request, tally)
    for run, group in groups(cut_runs(map(shaper, kept), request.run_frames), BLOCK_FRAMES):
        index = np.array([frame.index for frame in group], np.int64)
        times = [frame.pts_us for frame in group if frame.pts_us is not None]
        pts_us = np.array(times, np.int64) if len(times) == len(group) else None
        for view, box in enumerate(boxes(request, tally.size, run)):
            mirrored = view >= request.base_views
            frames = shaper.cut([frame.small for frame in group], box, request.resolution, mirrored, planes=True)
            pixels = shaper.cut([frame.pixels for frame in group], box, request.pixels, mirrored)
            yield Block(run, view, frames, pixels, index, pts_us, box, mirrored)


class _Shaper:
    """Scales frames by what the first one is: later ones of another size come out alike."""

    def __init__(self, request: DecodeRequest, tally: Tally) -> None:
        self._request = request
        self._tally = tally
        self._small: Resizer | None = None
        self._pixels: Resizer | None = None
        self._last: _Kept | None = None

    def __call__(self, picture: Picture) -> _Kept:
        if self._last is None:
            self._small = self._resizer(self._request.resolution) if self._request.codes else None
            self._pixels = self._resizer(self._request.pixels) if self._request.pixels else None
        elif self._last.index == picture.index:
            return self._last
        assert picture.frame is not None  # it is kept, so it was wanted
        small = self._small.planes(picture.frame) if self._small else None
        pixels = self._pixels.planes(picture.frame) if self._pixels else None
        self._last = _Kept(picture.index, picture.pts_us, small, pixels)
        return self._last

    def cut(
        self, scaled: list[Planes | None], box: Box, resolution: int | None, mirrored: bool, planes: bool = False
    ) -> np.ndarray | None:
        """uint8 [n, H, W, 3]: the box out of each frame, or its mirror image; None where that resolution is not
        wanted. `planes`: in memory lie [n, 3, H, W]."""
        wanted = [frame for frame in scaled if frame is not None]
        if not wanted or resolution is None:
            return None
        size = cut_size(self._request, self._tally.size, resolution)
        rows, columns = window(wanted[0][0].shape, box, self._tally.size, size)
        if mirrored:
            columns = slice(columns.stop - 1, columns.start - 1 if columns.start else None, -1)
        frames = _empty(len(wanted), size, planes)
        for frame, cut in zip(wanted, frames.transpose(0, 3, 1, 2), strict=True):
            for plane, out in zip(frame, cut, strict=True):
                out[...] = plane[rows, columns]
        return frames

    def _resizer(self, resolution: int) -> Resizer:
        return Resizer(scaled_size(self._request, self._tally.size, resolution), self._tally.turned)


def _empty(n: int, size: Size, planes: bool) -> np.ndarray:
    """uint8 [n, H, W, 3]; with `planes` [n, 3, H, W] in memory."""
    width, height = size
    if planes:
        return np.empty((n, 3, height, width), np.uint8).transpose(0, 2, 3, 1)
    return np.empty((n, height, width, 3), np.uint8)
