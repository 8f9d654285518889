"""Frames that are neither wanted nor referred to, left undecoded: the others come out bit for bit the same.

    packet ─▶ headers: place in the order of display ─▶ 16 packets later or more: index ─▶ wanted, or referred to?
                                                                                 yes ─▶ decoder ─▶ (time, frame)
                                                                                 no ──────────────▶ (time, None)

A frame's index is its rank, which is certain when 16 later packets (no decoder holds more) follow it in display. What
is shown must have ascending times, and the decoder must give the frames that were sent, with these times and without a
single error, in slices too; few packets may wait. Otherwise NotPlain is raised: what was given until then is right,
and whoever reads starts anew without skipping.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import av
from av.packet import Packet
from av.video.stream import VideoStream

from toto.tokenize.clip import one_line
from toto.tokenize.h264 import Headers
from toto.tokenize.h264_parameters import NotPlain

Wanted = Callable[[int], bool]  # whether the frame at this index is
DEEPEST = 16  # frames that FFmpeg's decoder holds back at most: H264_MAX_DPB_FRAMES
AT_ONCE = 32  # packets that are read, then decoded, then given: code that runs 32 times in a row stays in the cache
AT_ONCE_BYTES = 16 << 20  # of frames, about: larger ones are given sooner
MOST_HELD = 64  # packets; of x264 with 16 B-frames in a row 32 wait
MOST_HELD_BYTES = 64 << 20  # of them; decoding everything holds a single packet
MOST_DUE = 512  # frames not given yet; 28 there, and 272 if the decoder held 16 references


def headers_of(stream: VideoStream) -> Headers | None:
    """What reads the packets of a stream, which must not be open yet; None where every frame is to be decoded."""
    context = stream.codec_context
    if context.name != "h264":
        return None
    try:
        headers = Headers(context.extradata or b"")
    except NotPlain:
        return None
    context.options = {"err_detect": "explode"}  # damage is an error then, and not hidden in the picture
    return headers


@dataclass(slots=True)
class _Coming:
    """A packet on its way, then its frame."""

    packet: Packet | None  # None once it was sent, or need not be
    time: int
    order: int
    skippable: bool
    settled: bool = False  # its index is known
    wanted: bool = True
    done: bool = False  # its frame came, or need not be decoded
    frame: av.VideoFrame | None = None  # only where it is wanted


class Skipping:
    """The frames of one stream, read once: (time in units of the stream, frame, or None for one that is not wanted).

    `packets` end with None. The first frame is always wanted. Raises NotPlain, MemoryError.
    """

    def __init__(self, packets: Iterable[Packet | None], stream: VideoStream, headers: Headers, wanted: Wanted) -> None:
        self._packets = packets
        self._stream = stream
        self._headers = headers
        self._wanted = wanted
        self._shown = 0  # frames whose index is known
        self._last_order = self._last_time = -(1 << 63)  # of the frame settled last
        self._unsettled: list[_Coming] = []  # by order
        self._unsent: deque[_Coming] = deque()  # as they are decoded
        self._unsent_bytes = 0
        self._due: deque[_Coming] = deque()  # as they are shown
        self._decoding: deque[_Coming] = deque()  # of them, those whose frames are to come
        self._came_bytes = 0  # of frames
        self._failure = ""  # to be raised after what came before it was given

    def __iter__(self) -> Iterator[tuple[int, av.VideoFrame | None]]:
        packets, more = iter(self._packets), True
        while more:
            for packet in islice(packets, AT_ONCE):
                if packet is None:
                    more = False
                else:
                    self._see(packet)
            self._settle(DEEPEST if more else 0)
            for packet in chain(self._ready(), () if more else (None,)):
                self._decode(packet)
                if self._came_bytes > AT_ONCE_BYTES or self._failure:
                    yield from self._come()
            yield from self._come()
        if self._due:
            raise NotPlain("the decoder gave other frames than it got")

    def _see(self, packet: Packet) -> None:
        time = packet.pts
        if time is None or packet.is_corrupt or next(packet.iter_sidedata(), None) is not None:
            raise NotPlain("a packet that is not like the others")
        if packet.is_discard:  # damage in it would not be told, and other frames may refer to it
            raise NotPlain("a frame outside an edit list")
        coming = _Coming(packet, time, *self._headers.read(memoryview(packet)))
        rank = len(self._unsettled)
        while rank and self._unsettled[rank - 1].order > coming.order:
            rank -= 1
        if len(self._unsettled) - rank > self._headers.reorder:
            raise NotPlain("frames out of order")
        self._unsettled.insert(rank, coming)
        self._unsent.append(coming)
        self._unsent_bytes += packet.size
        if self._unsent_bytes > MOST_HELD_BYTES:
            raise NotPlain("packets that are too large to wait")

    def _settle(self, left: int) -> None:
        count = max(0, len(self._unsettled) - left)
        certain, self._unsettled = self._unsettled[:count], self._unsettled[count:]
        for coming in certain:
            if coming.order <= self._last_order or coming.time <= self._last_time:
                raise NotPlain("frames in another order than their times")
            self._last_order, self._last_time = coming.order, coming.time
            coming.settled = True
            coming.wanted = self._shown == 0 or self._wanted(self._shown)
            coming.done = coming.skippable and not coming.wanted
            self._shown += 1
            self._due.append(coming)
            if not coming.done:
                self._decoding.append(coming)

    def _ready(self) -> Iterator[Packet]:
        """For the decoder, all that is settled and not skipped: packets wait here, they are smaller than frames."""
        while self._unsent and self._unsent[0].settled:
            coming = self._unsent.popleft()
            packet, coming.packet = coming.packet, None  # a skipped frame may be due for long
            assert packet is not None  # it is sent once
            self._unsent_bytes -= packet.size
            if not coming.done:
                yield packet
        if len(self._unsent) > MOST_HELD or len(self._due) > MOST_DUE:
            raise NotPlain("a frame that is shown far later than it comes")

    def _decode(self, packet: Packet | None) -> None:
        try:
            frames = self._stream.decode(packet)
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            self._failure = one_line(error)
            return
        for frame in frames:
            coming = self._decoding.popleft() if self._decoding else None
            if coming is None or frame.pts != coming.time or frame.is_corrupt:
                self._failure = "the decoder gave another frame than it got"
                return
            coming.done = True
            coming.frame = frame if coming.wanted else None  # back to the decoder's pool, while it is in the cache
            self._came_bytes += 3 * frame.width * frame.height

    def _come(self) -> Iterator[tuple[int, av.VideoFrame | None]]:
        self._came_bytes = 0
        while self._due and self._due[0].done:
            coming = self._due.popleft()
            yield coming.time, coming.frame
        if self._failure:
            raise NotPlain(self._failure)
