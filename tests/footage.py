"""Tiny videos whose frames tell their number, and decode requests for them: what the decode tests share."""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from toto.tokenize.clip import Block, DecodeRequest, SourceInfo
from toto.tokenize.decode import decode

TICKS = 1000  # of a second, in times given to `write`


def numbered(count: int, size: tuple[int, int] = (48, 32)) -> Iterator[np.ndarray]:
    """uint8 RGB frames of one flat colour each: frame i is (i % 256, i // 256, 7)."""
    for i in range(count):
        yield np.full((size[1], size[0], 3), (i % 256, i // 256, 7), np.uint8)


def number_of(frame: np.ndarray) -> int:
    """Which frame of `numbered` this is, at any size."""
    return int(frame[0, 0, 0]) + 256 * int(frame[0, 0, 1])


def write(path: Path, frames: Iterable[np.ndarray], times_ms: Sequence[int] = (), fps: int = 25) -> Path:
    """A lossless video (PNG pictures in .mov, index first; FFV1 in .mkv); `times_ms` default to an even `fps`."""
    codec, pixels = {".mov": ("png", "rgb24"), ".mkv": ("ffv1", "bgr0")}[path.suffix]
    options = {"movflags": "faststart"} if path.suffix == ".mov" else {}
    with av.open(f"file:{path}", "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.pix_fmt = pixels
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            if i == 0:
                stream.width, stream.height = frame.width, frame.height
                stream.codec_context.time_base = Fraction(1, TICKS)
            frame.pts = times_ms[i] if times_ms else i * TICKS // fps
            frame.time_base = Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def request(path: Path | str, **changes: Any) -> DecodeRequest:
    """Every frame of a video, centre crop, 16 px, in one run of up to 64."""
    asked: dict[str, Any] = {
        "key": Path(path).name,
        "uri": str(path),
        "kind": "video",
        "animated": True,
        "stride": 1,
        "fps": None,
        "uniform": None,
        "crop": "center",
        "resolution": 16,
        "patch": 8,
        "views": 1,
        "run_frames": 64,
        "seed": 0,
        "pixels": None,
        "codes": True,
    }
    return DecodeRequest(**(asked | changes))


def read(path: Path | str, **changes: Any) -> tuple[list[Block], SourceInfo]:
    """Decodes in this process: the blocks, and the facts."""
    *blocks, info = decode(request(path, **changes))
    assert isinstance(info, SourceInfo)
    return [block for block in blocks if isinstance(block, Block)], info


def pictures(blocks: Iterable[Block]) -> np.ndarray:
    """uint8 [n, H, W, 3]: the frames of all blocks, one after another."""
    return np.concatenate([block.frames for block in blocks if block.frames is not None])
