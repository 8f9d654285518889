"""Frames that nobody wants and no other frame needs are not decoded: nothing else may change by a bit.

The reference is the same file read with every frame decoded.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.stream import VideoStream
from footage import request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toto.tokenize.clip import Block, SourceError, SourceInfo
from toto.tokenize.decode import decode, open_pictures
from toto.tokenize.h264 import Headers
from toto.tokenize.h264_parameters import NotPlain
from toto.tokenize.skipping import Skipping

FRAMES = 48
BRIEF = 18
RULES: tuple[dict[str, Any], ...] = (
    {"stride": 4},
    {"stride": 3, "protocols": ("single-1x1-4f3",), "run_frames": None},
    {"stride": None, "uniform": 5},
    {"stride": None, "positions": (2, 5, 6, 7, 30, 31)},
)
SKIPPING = {  # x264's options, of streams in which frames can be skipped
    "the defaults": "",
    "a pyramid": "b-adapt=0:bframes=3",
    "no pyramid": "b-adapt=0:bframes=3:b-pyramid=none",
    "a strict pyramid": "b-adapt=0:bframes=5:b-pyramid=strict",
    "one B-frame": "bframes=1:weightb=0",
    "deep reordering": "bframes=16:b-adapt=0:ref=16",
    "open groups": "open-gop=1:keyint=12:min-keyint=3",
    "short groups": "keyint=7",
    "CAVLC, slices": "cabac=0:slices=3",
    "no deblocking": "no-deblock=1:slice-max-size=200",
    "every word of the VUI": "colorprim=bt709:transfer=bt709:colormatrix=bt709:sar=64/51:overscan=show:chromaloc=1",
    "intra refresh, delimiters, headers repeated": "intra-refresh=1:keyint=25:aud=1:repeat-headers=1",
}
DECODING_ALL = {  # of streams in which they cannot, or in which that is not certain
    "no B-frames": "bframes=0",
    "pictures only": "keyint=1",
    "fields": "tff=1",
    "fields announced": "fake-interlaced=1",
    "notes beside every frame": "pic-struct=1",
}


def encode(path: Path, parameters: str = "", frames: int = FRAMES, uneven: bool = False, **stream: Any) -> Path:
    """A textured square over a drifting texture, 64 x 48, at 25 a second or at `uneven` times."""
    rng = np.random.default_rng(0)
    field = np.kron(rng.integers(0, 255, (6, 24, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    square = rng.integers(0, 255, (12, 12, 3), np.uint8)
    options = {"threads": "1", **({"x264-params": parameters} if parameters else {})}
    with av.open(str(path), "w") as container:
        output = container.add_stream(stream.get("codec", "libx264"), rate=25, options=options)
        output.codec_context.time_base = Fraction(1, 50)
        output.width, output.height, output.pix_fmt = 64, 48, stream.get("pix_fmt", "yuv420p")
        for i in range(frames):
            picture = field[:, 2 * i : 2 * i + 64].copy()
            picture[i % 36 : i % 36 + 12, 3 * i % 52 : 3 * i % 52 + 12] = square
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = 2 * i + (i * i % 2 if uneven else 0)
            frame.time_base = Fraction(1, 50)
            container.mux(output.encode(frame))
        container.mux(output.encode())
    return path


def parts(path: Path, **rule: Any) -> list[object]:
    """What decoding gives, or raises, as values to be compared."""
    found: list[object] = []
    try:
        for part in decode(request(path, **{"run_frames": 64, **rule})):
            found.append(_values(part) if isinstance(part, Block) else part)
    except SourceError as error:
        found.append((error.reason, error.detail))
    return found


def _values(block: Block) -> tuple[object, ...]:
    arrays = (block.frames, block.pixels, block.index, block.pts_us)
    return (block.run, block.view, block.crop, *(None if array is None else array.tobytes() for array in arrays))


@pytest.fixture
def all_decoded(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[object]]:
    """As `parts`, with every frame decoded."""

    def read(path: Path, **rule: Any) -> list[object]:
        with monkeypatch.context() as patch:
            patch.setattr("toto.tokenize.decode_video.headers_of", lambda stream: None)
            return parts(path, **rule)

    return read


class Counting:
    """A stream that counts the packets it decodes."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.packets = 0

    def decode(self, packet: Packet | None) -> list[av.VideoFrame]:
        self.packets += packet is not None
        return list(self.stream.decode(packet))


def skipped(path: Path, stride: int = 4) -> int:
    """How many frames are not decoded at this stride."""
    used: list[Counting] = []

    def counted(given: Iterable[Packet | None], stream: Any, *others: Any) -> Skipping:
        used.append(Counting(stream))
        return Skipping(given, cast(VideoStream, used[-1]), *others)

    with (
        patch("toto.tokenize.decode_video.Skipping", counted),
        open_pictures(str(path), "video", True, lambda index: index % stride == 0) as pictures,
    ):
        frames = len(list(pictures))
    return frames - used[0].packets if used else 0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Groups of 20 frames, half of which can be skipped."""
    return encode(tmp_path_factory.mktemp("clip") / "clip.mp4", "b-adapt=0:bframes=3:keyint=20")


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """BRIEF frames of the same."""
    return encode(tmp_path_factory.mktemp("brief") / "clip.mp4", "b-adapt=0:bframes=3:keyint=20", BRIEF)


@pytest.mark.parametrize("name", SKIPPING)
def test_wanted_frames_times_and_counts_are_the_same(
    name: str, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    path = encode(tmp_path / f"clip.{'mkv' if len(name) % 2 else 'mp4'}", SKIPPING[name])
    for rule in RULES:
        found = parts(path, **rule)
        assert isinstance(found[-1], SourceInfo) and found[-1].frames_decoded == FRAMES
        assert found == all_decoded(path, **rule)
    assert skipped(path) >= FRAMES // 6


@pytest.mark.parametrize(
    ("suffix", "stream"),
    [
        ("flv", {}),
        ("mov", {"pix_fmt": "yuv420p10le"}),
        ("mp4", {"pix_fmt": "yuv420p10le", "parameters": "qp=1"}),
        ("mkv", {"uneven": True}),
    ],
)
def test_other_containers_depths_and_times_are_the_same_too(
    suffix: str, stream: dict[str, Any], tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    path = encode(tmp_path / f"clip.{suffix}", **stream)
    assert skipped(path) > 0 and parts(path, stride=4) == all_decoded(path, stride=4)


@pytest.mark.parametrize("name", DECODING_ALL)
def test_every_frame_is_decoded_where_skipping_is_not_certain(
    name: str, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    path = encode(tmp_path / "clip.mp4", DECODING_ALL[name])
    assert skipped(path) == 0 and parts(path, stride=4) == all_decoded(path, stride=4)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("ts", "libx264"), ("avi", "libx264"), ("avi", "mpeg4"), ("mp4", "mpeg4")]
)
def test_every_frame_is_decoded_of_other_streams(suffix: str, codec: str, tmp_path: Path) -> None:
    assert skipped(encode(tmp_path / f"clip.{suffix}", codec=codec)) == 0


def test_half_of_a_pyramid_is_skipped_where_its_others_are_wanted(clip: Path) -> None:
    """Of I b B b P b B b P …: every b."""
    assert FRAMES // 2 - 4 <= skipped(clip) <= FRAMES // 2


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """Offset and bytes of each packet in the file, and whether no other frame refers to it."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [packet for packet in container.demux(stream) if packet.size and packet.pos is not None]
        return [(packet.pos or 0, packet.size, bytes(packet)[4] == 1) for packet in found]


def damaged(path: Path, target: Path, flips: Iterable[tuple[int, int]]) -> Path:
    """A copy with bits flipped: (offset, bit)."""
    content = bytearray(path.read_bytes())
    for at, bit in flips:
        content[at] ^= 1 << bit
    target.write_bytes(content)
    return target


FLIPS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 7)), min_size=1, max_size=3)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=FLIPS, cut=st.sampled_from((0, 0, 0, 700)))
def test_damage_gives_the_same_frames_counts_and_errors(
    flips: list[tuple[int, int, int]],
    cut: int,
    clip: Path,
    tmp_path: Path,
    all_decoded: Callable[..., list[object]],
) -> None:
    """Or, where only skipped frames are damaged, those of the file before: their data is not looked at, and FFmpeg's
    decoder may carry what is wrong in them on to others."""
    places = packets(clip)
    chosen = [(places[which % len(places)], where, bit) for which, where, bit in flips]
    spots = [(at + where % size, bit, unreferred) for (at, size, unreferred), where, bit in chosen]
    bad = damaged(clip, tmp_path / "bad.mp4", [(at, bit) for at, bit, _ in spots])
    mended = damaged(clip, tmp_path / "mended.mp4", [(at, bit) for at, bit, unreferred in spots if not unreferred])
    for path in (bad, mended):
        os.truncate(path, path.stat().st_size - cut)
    assert parts(bad, stride=4) in (all_decoded(bad, stride=4), all_decoded(mended, stride=4))


@pytest.mark.parametrize("unreferred", [True, False])
def test_every_bit_of_a_header_matters_as_much_as_before(
    unreferred: bool, brief: Path, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    at = [at for at, _, kind in packets(brief) if kind == unreferred][3]
    for i in range(16, 80):  # of the length, of the NAL unit's header, of the slice's
        path = damaged(brief, tmp_path / "clip.mp4", [(at + i // 8, 7 - i % 8)])
        assert parts(path, stride=4) == all_decoded(path, stride=4), i


def test_every_bit_at_the_end_of_the_parameter_sets_matters_as_much_as_before(
    brief: Path, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    """Among them the depth of reordering: FFmpeg loses frames where it is too small."""
    with av.open(str(brief)) as container:
        box = container.streams.video[0].codec_context.extradata or b""
    start = brief.read_bytes().index(box)
    sps_end = start + 8 + int.from_bytes(box[6:8], "big")
    for i in range(64):
        path = damaged(brief, tmp_path / "clip.mp4", [(sps_end - 3 + i // 8, 7 - i % 8)])
        assert parts(path, stride=4) == all_decoded(path, stride=4), i


def test_an_error_late_in_a_file_leaves_what_was_given_before(
    clip: Path, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    at, size, _ = [place for place in packets(clip) if not place[2]][-4]
    path = damaged(clip, tmp_path / "clip.mp4", [(i, 0) for i in range(at + size // 2, at + size)])
    seen: list[int] = []
    with open_pictures(str(path), "video", True, lambda index: index % 2 == 0) as pictures, pytest.raises(NotPlain):
        seen.extend(picture.index for picture in pictures)
    assert len(seen) > 24  # so blocks were given before the file was read anew
    assert parts(path, stride=2, run_frames=4) == all_decoded(path, stride=2, run_frames=4)


def remuxed(path: Path, target: Path, change: Callable[[int], int]) -> Path:
    """The same packets with changed times, in steps of a frame."""
    with (
        av.open(str(path)) as source,
        av.open(
            str(target), "w", container_options={"avoid_negative_ts": "disabled", "use_editlist": "1"}
        ) as container,
    ):
        stream = container.add_stream_from_template(source.streams.video[0])
        given = (packet for packet in source.demux(video=0) if packet.size)
        for packet in given:
            step = packet.duration or 1
            packet.pts = step * change((packet.pts or 0) // step)
            packet.dts = (packet.dts or 0) - step * 40
            packet.stream = stream
            container.mux(packet)
    return target


def test_of_files_with_frames_outside_an_edit_list_all_are_decoded(
    clip: Path, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    """FFmpeg's decoder does not tell that one of them is damaged; without its error no other frame can be trusted."""
    path = remuxed(clip, tmp_path / "clip.mp4", lambda time: time - 7)
    with av.open(str(path)) as container:
        assert sum(packet.is_discard for packet in container.demux(video=0)) > 3
    with pytest.raises(NotPlain):
        skipped(path)
    at, size, _ = packets(path)[1]  # what the first frames given refer to
    bad = damaged(path, tmp_path / "bad.mp4", [(at + size // 2, 0), (at + size // 2 + 1, 5)])
    for file in (path, bad):
        for rule in ({"stride": 4}, {"stride": None, "positions": (9, 14)}):
            assert parts(file, **rule) == all_decoded(file, **rule)


@pytest.mark.parametrize("bound", ["MOST_HELD", "MOST_HELD_BYTES", "MOST_DUE"])
def test_what_waits_is_bounded_and_past_that_every_frame_is_decoded(
    bound: str, clip: Path, monkeypatch: pytest.MonkeyPatch, all_decoded: Callable[..., list[object]]
) -> None:
    monkeypatch.setattr(f"toto.tokenize.skipping.{bound}", 1)
    with pytest.raises(NotPlain):
        skipped(clip)
    assert parts(clip, stride=4) == all_decoded(clip, stride=4)


def test_reading_anew_does_not_keep_the_first_decoder(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is being handled holds the stack it came through, with packets and pictures."""
    monkeypatch.setattr("toto.tokenize.skipping.MOST_HELD", 1)
    handled: set[object] = set()
    for _ in decode(request(clip, stride=4), lambda: handled.add(sys.exc_info()[0])):
        pass
    assert handled == {None}


def test_two_frames_in_a_packet_are_not_plain(clip: Path) -> None:
    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        headers = Headers(stream.codec_context.extradata or b"")
        found = [bytes(packet) for packet in container.demux(stream) if packet.size]
    headers.read(memoryview(found[0]))
    with pytest.raises(NotPlain):
        headers.read(memoryview(found[1] + found[1]))


def test_times_in_another_order_than_the_frames_are_left_alone(
    clip: Path, tmp_path: Path, all_decoded: Callable[..., list[object]]
) -> None:
    """Frames are never sorted by time, and one that has another's time is not taken for it."""
    for changes in ({20: 21, 21: 20}, {30: 31}):
        path = remuxed(clip, tmp_path / "clip.mkv", lambda time, changes=changes: changes.get(time, time))
        assert parts(path, stride=4) == all_decoded(path, stride=4)


@given(st.binary(max_size=80), st.binary(max_size=60))
def test_bytes_of_any_kind_are_headers_or_not_plain(box: bytes, packet: bytes) -> None:
    for avcc in (box, b"\1dd\0\37\377\341" + box):
        try:
            Headers(avcc).read(memoryview(packet))
        except NotPlain:
            pass


def test_real_files_give_the_same(media: Path, all_decoded: Callable[..., list[object]]) -> None:
    rows = json.loads((media / "index.json").read_text())["rows"]
    small = [row for row in rows if row.get("codec") == "h264" and row["bytes"] < 130_000]
    files = [media / row["file"] for row in small if row["width"] * row["height"] * row["frames_decoded"] < 15_000_000]
    for path in files:
        assert parts(path, stride=4) == all_decoded(path, stride=4), path
    assert len(files) >= 10
