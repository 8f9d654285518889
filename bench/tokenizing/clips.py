"""Clips per second on one core: [16, 3, 128, 128] at stride 4 from 360p H.264, read from start to end.

Ours: as a worker reads, through the killable child. Peers: decord and torchcodec (every 4th frame, their own resize),
and PyAV to full RGB with Pillow's resize, the usual loop. All are held to one thread, and to one core. On Linux each
pair is taken a second time by CPU time, all processes of a side together: a busy machine changes that less.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import av
import numpy as np
from PIL import Image
from sides import Line, compare, skipped

from toto.tokenize.clip import DecodeRequest, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.sample_footage import write_clip

Clock = Callable[[], float]  # seconds
STRIDE, SIDE, FRAMES = 4, 128, 16
WIDTH, LEFT = 228, 50  # of 640×360 with the short side at 128; of the crop in it
SECONDS = 40


def measure(repeats: int) -> list[Line]:
    """All comparisons; those with decord and torchcodec are left out where these do not load."""
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

        what = f"clips of [{FRAMES}, 3, {SIDE}, {SIDE}] a second and core, 640×360 H.264, against"
        clocks: dict[str, Clock] = {"": time.perf_counter}
        if sys.platform == "linux":
            clocks[", by CPU time"] = lambda: time.process_time() + _cpu_s(decoder.pid)

        def pair(name: str, peer: Callable[[Path], int], bar: float) -> list[Line]:
            return [
                compare(
                    f"{what} {name}{how}",
                    "clips/s",
                    partial(_rate, clock, partial(_ours, decoder, clip)),
                    partial(_rate, clock, partial(peer, clip)),
                    bar,
                    repeats,
                )
                for how, clock in clocks.items()
            ]

        lines = pair("PyAV to RGB to Pillow", _pillow, 2.5)
        for module, peer in (("decord", _decord), ("torchcodec", _torchcodec)):
            try:
                import_module(module)
            except (ImportError, OSError, RuntimeError) as error:
                lines += skipped(f"{what} {module}", str(error).strip().splitlines()[0])
            else:
                lines += pair(module, peer, 0.95)
        return lines


def _rate(clock: Clock, read: Callable[[], int]) -> float:
    started = clock()
    kept = read()
    return kept / FRAMES / (clock() - started)


def _cpu_s(pid: int | None) -> float:
    """CPU seconds of a process so far, in steps of 10 ms; 0 for none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime


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

    reader = decord.VideoReader(str(clip), width=WIDTH, height=SIDE, num_threads=1)
    return _cropped(len(reader), lambda places: reader.get_batch(places).asnumpy())


def _torchcodec(clip: Path) -> int:
    from torchcodec import decoders, transforms

    resize = [transforms.Resize((SIDE, WIDTH))]
    reader = decoders.VideoDecoder(str(clip), num_ffmpeg_threads=1, dimension_order="NHWC", transforms=resize)
    return _cropped(len(reader), lambda places: reader.get_frames_at(places).data.numpy())


def _cropped(count: int, read: Callable[[list[int]], np.ndarray]) -> int:
    """Reads every 4th of so many frames, 16 at a time, and crops them; how many."""
    wanted = range(0, count, STRIDE)
    clips = (read(list(wanted[start : start + FRAMES])) for start in range(0, len(wanted), FRAMES))
    return sum(len(np.ascontiguousarray(frames[:, :, LEFT : LEFT + SIDE])) for frames in clips)
