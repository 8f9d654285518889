"""Made-up footage to measure on where there is none yet: 640×360 H.264 of textures, 500×375 JPEGs.

About what HowTo100M's and ImageNet's files are like. The camera starts and stops by chance and its pictures have
noise, so that x264 decides from frame to frame how many others refer to it, as it does on real footage: a third of the
frames need not be decoded at a stride of 4. Real videos are busier or calmer, and decode slower or faster.
"""

from pathlib import Path

import av
import numpy as np
from PIL import Image

from toto.tokenize.sources.base import Source

SIZE, RATE, SCENE_S, KEYFRAMES = (640, 360), 30, 5, 250
JERK, DRAG, NOISE = 2.0, 0.9, 4.0  # pixels a frame more, at random; what is left of the speed; standard deviation
PICTURE = (500, 375)
PICTURES = 64


def write_clip(path: Path, seconds: float, seed: int = 0) -> Path:
    """One clip at 30 frames/s and about 0.5 Mbit/s; another seed gives other textures, a new one every five seconds."""
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = np.array(SIZE)  # the texture is twice as large
    noise = rng.normal(0, NOISE, (2 * SIZE[1], 2 * SIZE[0], 1)).astype(np.int16)
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "23", "g": str(KEYFRAMES), "threads": "1"}
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(round(seconds * RATE)):
            if i % (SCENE_S * RATE) == 0:
                field = _texture(rng, (2 * SIZE[0], 2 * SIZE[1])).astype(np.int16)
                place, speed = room / 2, np.zeros(2)
            speed = DRAG * speed + rng.normal(0, JERK, 2)
            place = np.clip(place + speed, 0, room - 1)
            picture = _window(field, place.astype(int)) + _window(noise, rng.integers(room))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    return path


def _window(field: np.ndarray, place: np.ndarray) -> np.ndarray:
    """What is in the picture, where its corner is at `place` (x, y)."""
    x, y = place
    return field[y : y + SIZE[1], x : x + SIZE[0]]


def sample_sources(folder: Path, kind: str, seconds: float = 8) -> list[Source]:
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
