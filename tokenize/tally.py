"""What is learnt about a source while its frames pass: counts, flags, size, rate and length."""

from collections.abc import Callable, Iterable, Iterator

import av

from toto.shards.flags import Flag
from toto.tokenize.clip import Size, SourceError, SourceInfo
from toto.tokenize.picture import Picture, Pictures
from toto.tokenize.resize import Orientation, check_size, orientation

HDR_TRANSFERS = (16, 18)  # AVCOL_TRC_SMPTE2084 (PQ), AVCOL_TRC_ARIB_STD_B67 (HLG)


class Tally:
    """Watches the decoded and the kept frames of one source, then tells its SourceInfo."""

    def __init__(self, pictures: Pictures, on_frame: Callable[[], None]) -> None:
        self._pictures = pictures
        self._on_frame = on_frame
        self._decoded = 0
        self._kept = 0
        self._flags = Flag(0)
        self.size: Size = (0, 0)  # of the first frame, upright; known once it was decoded
        self.turned = Orientation()  # what makes every frame upright: the first one's
        self._times = Times()

    def decoded(self) -> Iterator[Picture]:
        """Every decoded frame. Raises SourceError `no_frames` or `decode_error` when there was none."""
        for picture in self._pictures:
            if self._decoded == 0 and picture.frame is not None:
                self._look_at(picture.frame)
            self._decoded += 1
            self._times.see(picture.pts_us)
            self._on_frame()
            yield picture
        if self._decoded == 0 and self._pictures.errors:
            raise SourceError("decode_error", self._pictures.detail)
        if self._decoded == 0:
            raise SourceError("no_frames", "the file opens, but holds no frame")

    def kept(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """The kept frames, passed on."""
        last = -1
        for picture in pictures:
            if picture.index == last:
                self._flags |= Flag.REPEATED
            last = picture.index
            self._kept += 1
            yield picture

    def info(self) -> SourceInfo:
        """The facts, once every frame has passed. Whether the rate varies, the times of a row tell."""
        pictures = self._pictures
        flags = self._flags | pictures.flags
        if pictures.errors or pictures.truncated:
            flags |= Flag.SALVAGED
        moving = pictures.kind == "video"
        fps = (self._times.rate or pictures.rate) if moving else None
        return SourceInfo(
            kind=pictures.kind,
            codec=pictures.codec,
            width=self.size[0],
            height=self.size[1],
            fps=fps,
            rate=pictures.rate,
            frames_decoded=self._decoded,
            frames_kept=self._kept,
            duration_s=self._decoded / fps if fps else None,
            flags=int(flags),
            errors=pictures.errors,
            detail=pictures.detail or ("the file is cut short" if pictures.truncated else ""),
        )

    def _look_at(self, frame: av.VideoFrame) -> None:
        self.turned = orientation(frame)
        self.size = self.turned.upright((frame.width, frame.height))
        check_size(*self.size)
        if self.turned:
            self._flags |= Flag.ROTATED
        if frame.color_trc in HDR_TRANSFERS:
            self._flags |= Flag.HDR


class Times:
    """The stretch of time that frames cover; they may come out of order."""

    def __init__(self) -> None:
        self._seen = 0
        self._first_us = self._last_us = 0

    def see(self, pts_us: int | None) -> None:
        """Takes the time of the next frame, if it has one."""
        if pts_us is None:
            return
        if not self._seen:
            self._first_us = self._last_us = pts_us
        elif pts_us > self._last_us:
            self._last_us = pts_us
        elif pts_us < self._first_us:
            self._first_us = pts_us
        self._seen += 1

    @property
    def rate(self) -> float | None:
        """Frames per second over the whole stretch; None for fewer than two different times."""
        span_us = self._last_us - self._first_us
        return (self._seen - 1) * 1e6 / span_us if span_us > 0 else None
