"""Packets to frames: every frame the decoder gives, in its order, past every packet that does not decode.

Frames are never sorted by time: in AVI files with B-frames the times are wrong and the order is right. Where the
wanted frames are known, others may pass undecoded (see skipping.py).
"""

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet

from toto.shards.flags import Flag
from toto.tokenize.clip import SourceError, one_line
from toto.tokenize.container import video_stream
from toto.tokenize.h264_parameters import NotPlain
from toto.tokenize.input_file import local_path, still_readable
from toto.tokenize.picture import Picture
from toto.tokenize.skipping import Skipping, Wanted, headers_of
from toto.tokenize.transient import ERRNOS

FASTEST_FPS = 240  # containers claim 612 or 1,000 fps for footage of 30


class VideoPictures:
    """The frames of a container's video stream (see picture.Pictures).

    `wanted`: where an index is not, the picture may lack its frame; NotPlain is raised while it is read where that
    turns out to be unsafe, and then it is to be read anew without. Raises while it is read: SourceError `unsupported`
    for encrypted packets, TransientError, MemoryError.
    """

    kind = "video"

    def __init__(self, container: InputContainer, uri: str, wanted: Wanted | None = None) -> None:
        stream = video_stream(container)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = 1  # a process per core does more than threads do
        aspect = stream.sample_aspect_ratio
        self.codec = stream.codec_context.codec.canonical_name
        self.rate = believable_rate(stream.average_rate, stream.guessed_rate)
        self.errors = 0
        self.detail = ""
        self.truncated = False
        self.flags = Flag.NON_SQUARE if aspect not in (None, 0, 1) else Flag(0)
        self._container = container
        self._stream = stream
        self._path = local_path(uri)
        self._wanted = wanted
        self._headers = headers_of(stream) if wanted else None

    def __iter__(self) -> Iterator[Picture]:
        microseconds = _clock(self._stream.time_base)  # asked for once: PyAV makes a Fraction of it each time
        for index, (pts, frame) in enumerate(self._timed()):
            yield Picture(index, microseconds(pts), frame)

    def _timed(self) -> Iterator[tuple[int | None, av.VideoFrame | None]]:
        """Every frame, or None for one left undecoded, with its time in units of the stream."""
        if self._wanted is None or self._headers is None:
            for packet in self._packets():
                for frame in self._frames(packet):
                    yield frame.pts, frame
            return
        yield from Skipping(self._packets(), self._stream, self._headers, self._wanted)
        if self.errors:
            raise NotPlain(self.detail)

    def _packets(self) -> Iterator[Packet | None]:
        """Every packet of the stream, then None, which empties the decoder."""
        demuxed = 0
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    demuxed += 1
                    self.truncated |= packet.is_corrupt  # cut short by the end of the file
                    yield packet
        except av.error.FFmpegError as error:
            self._count(error)
            if self._path is not None and error.errno in ERRNOS:
                still_readable(self._path)
        self.truncated |= len(self._stream.index_entries) > demuxed
        yield None

    def _frames(self, packet: Packet | None) -> list[av.VideoFrame]:
        if packet is not None and _is_encrypted(packet):
            raise SourceError("unsupported", "the video is encrypted")  # it would decode to noise
        try:
            return self._stream.decode(packet)
        except av.error.FFmpegError as error:
            self._count(error)
            return []

    def _count(self, error: av.error.FFmpegError) -> None:
        if isinstance(error, MemoryError):
            raise error
        self.errors += 1
        self.detail = self.detail or one_line(error)


def believable_rate(*claims: Fraction | None) -> float | None:
    """The first claimed frame rate in (0, 240]; None when there is none."""
    for claim in claims:
        if claim and 0 < claim <= FASTEST_FPS:
            return float(claim)
    return None


def _is_encrypted(packet: Packet) -> bool:
    """Most packets have no side data at all; asking for one kind of it by name takes six times as long."""
    return next(packet.iter_sidedata(), None) is not None and packet.has_sidedata("encryption_info")


def _clock(time_base: Fraction | None) -> Callable[[int | None], int | None]:
    """From a time in units of `time_base` to µs, halves up; None where there is no time or no unit."""
    unit = time_base or Fraction(0)
    factor, half, whole = 2_000_000 * unit.numerator, unit.denominator, 2 * unit.denominator
    if not factor:
        return lambda pts: None
    return lambda pts: None if pts is None else (factor * pts + half) // whole
