"""Footage for benchmarks: 640×360 H.264 at 30 frames/s, moving textures, a new one every five seconds."""

from pathlib import Path

import av
import numpy as np
from PIL import Image

SIZE, RATE, SCENE_S, KEYFRAMES = (640, 360), 30, 5, 250


def write_clip(path: Path, seconds: float, seed: int = 0, size: tuple[int, int] = SIZE) -> Path:
    """One clip; about 1 Mbit/s at 640×360. Another seed gives other textures."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "g": str(KEYFRAMES), "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(round(seconds * RATE)):
            if i % (SCENE_S * RATE) == 0:
                field = _texture(rng, size)
            shift = 2 * i % size[0]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:, shift : shift + size[0]]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_clips(folder: Path, count: int, seconds: float, different: int = 8) -> list[Path]:
    """`count` files; only `different` of them are encoded, the others are copies under other names."""
    made = [write_clip(folder / f"{i:05d}.mp4", seconds, seed=i) for i in range(min(count, different))]
    for i in range(len(made), count):
        path = folder / f"{i:05d}.mp4"
        path.write_bytes(made[i % different].read_bytes())
        made.append(path)
    return made


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    coarse = rng.integers(0, 255, (size[1] // 8, size[0] // 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size[0] * 2, size[1]), Image.Resampling.BICUBIC))
