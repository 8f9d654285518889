"""Made-up footage to measure on where there is none yet: 640×360 H.264 of moving textures, 500×375 JPEGs.

About what HowTo100M's and ImageNet's files are like; real videos are busier or calmer, and decode slower or faster.
"""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from toto.tokenize.sources.base import Source

SIZE, RATE, SCENE_S, KEYFRAMES = (640, 360), 30, 5, 250
PICTURE = (500, 375)
PICTURES = 64


def write_clip(path: Path, seconds: float, seed: int = 0) -> Path:
    """One clip at 30 frames/s and about 1 Mbit/s; another seed gives other textures, a new one every five seconds."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "g": str(KEYFRAMES), "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(round(seconds * RATE)):
            if i % (SCENE_S * RATE) == 0:
                field = _texture(rng, (SIZE[0] * 2, SIZE[1]))
            shift = 2 * i % SIZE[0]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:, shift : shift + SIZE[0]]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sample_sources(folder: Path, kind: str, seconds: float = 20) -> list[Source]:
    """A clip ("video") or pictures ("image") in `folder`, as sources to calibrate on."""
    if kind == "video":
        paths = [write_clip(folder / "clip.mp4", seconds)]
    else:
        rng = np.random.default_rng(0)
        paths = [folder / f"{i}.jpg" for i in range(PICTURES)]
        for path in paths:
            Image.fromarray(_texture(rng, PICTURE)).save(path, quality=90)
    return [Source(path.name, str(path), kind, "train", None, path.stat().st_size) for path in paths]


def _texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3], smooth."""
    coarse = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
