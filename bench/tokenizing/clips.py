"""Clips per second on one core: [16, 3, 128, 128] at stride 4 from 360p H.264, read from start to end.

Ours: as a worker reads, through the killable child. Peers: decord (every 4th frame, its own resize), and PyAV to full
RGB with Pillow's resize, the usual loop. All are held to one thread, and to one core.
"""

import os
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from PIL import Image
from sides import Line, compare, skipped

from toto.tokenize.clip import DecodeRequest, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.sample_footage import write_clip

STRIDE, SIDE, FRAMES = 4, 128, 16
SECONDS = 40


def measure(repeats: int) -> list[Line]:
    """Both comparisons; decord's is left out where it does not load."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed:
        os.sched_setaffinity(0, {max(allowed)})  # ours has two processes, the peers one
    try:
        return _measure(repeats)
    finally:
        if allowed:
            os.sched_setaffinity(0, allowed)


def _measure(repeats: int) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder, Decoder(60, 4096) as decoder:
        clip = write_clip(Path(folder) / "clip.mp4", SECONDS)

        def ours() -> float:
            return _rate(lambda: _ours(decoder, clip))

        what = f"clips of [{FRAMES}, 3, {SIDE}, {SIDE}] a second and core, 640×360 H.264, against"
        lines = [
            compare(
                f"{what} PyAV to RGB to Pillow", "clips/s", ours, lambda: _rate(lambda: _pillow(clip)), 2.5, repeats
            )
        ]
        try:
            import decord  # noqa: F401
        except (ImportError, OSError) as error:
            return lines + skipped(f"{what} decord", str(error))
        return [*lines, compare(f"{what} decord", "clips/s", ours, lambda: _rate(lambda: _decord(clip)), 0.95, repeats)]


def _rate(read) -> float:
    started = time.perf_counter()
    kept = read()
    return kept / FRAMES / (time.perf_counter() - started)


def _ours(decoder: Decoder, clip: Path) -> int:
    request = DecodeRequest(
        key=clip.name, uri=str(clip), kind="video", animated=False, stride=STRIDE, fps=None, uniform=None,
        crop="center", resolution=SIDE, patch=8, views=1, run_frames=64, seed=0, pixels=None, codes=True,
    )  # fmt: skip
    return sum(len(part.index) for part in decoder.decode(request) if not isinstance(part, SourceInfo))


def _pillow(clip: Path) -> int:
    kept = 0
    with av.open(str(clip)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i % STRIDE == 0:
                crop_of(frame.to_ndarray(format="rgb24"))
                kept += 1
    return kept


def crop_of(picture: np.ndarray) -> np.ndarray:
    """uint8 [128, 128, 3]: Pillow's resize (its default, bicubic) of the short side, then the middle."""
    height, width = picture.shape[:2]
    scale = SIDE / min(height, width)
    size = round(width * scale), round(height * scale)
    small = np.asarray(Image.fromarray(picture).resize(size))
    top, left = (size[1] - SIDE) // 2, (size[0] - SIDE) // 2
    return small[top : top + SIDE, left : left + SIDE]


def _decord(clip: Path) -> int:
    import decord

    reader = decord.VideoReader(str(clip), width=228, height=SIDE, num_threads=1)  # short side 128 of 640×360
    kept = 0
    wanted = list(range(0, len(reader), STRIDE))
    for start in range(0, len(wanted), FRAMES):
        frames = reader.get_batch(wanted[start : start + FRAMES]).asnumpy()
        kept += len(np.ascontiguousarray(frames[:, :, 50 : 50 + SIDE]))
    return kept
