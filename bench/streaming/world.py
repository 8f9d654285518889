"""Real-looking tokens to stream: videos through `dct` (8,192 codes, 128 px, a grid of 16×16), many crops of each.

    videos ─▶ every frame, short side 144 ─▶ of each source a video, a pace, a square, mirrored or not ─▶ dct ─▶ shards

Without a folder of videos it is made-up footage: moving textures, of which less repeats from frame to frame.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import av
import click
import numpy as np

from toto.tokenize.sample_footage import write_clip
from toto.tokenize.tokenizers.dct import DCT

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "tests"))  # token_world

from token_world import Image, Video, write_tokens  # noqa: E402

CODES, SIDE, SHORT, GRID = 8_192, 128, 144, (16, 16)
MOST_FRAMES, PACES = 256, (1, 2, 3, 4)  # of a source; decoded frames from one to the next
RUN, LEAST = 64, 16  # frames of a run, of the last run
VIDEOS, SECONDS = 8, 15  # of made-up footage
SOURCES_A_SHARD = 48


def prepare(folder: Path, frames: int, media: Path | None) -> Path:
    """The sealed dataset in `folder`; made when it is not there yet, one core-minute for 100,000 frames."""
    root = folder / f"videos-{frames}-{media.name if media else 'made-up'}"
    if not (root / "dataset.json").exists():
        click.echo(f"making {frames:,} frames of tokens in {root}")
        write_tokens(root, _videos(frames, media, folder), vocab_size=CODES, unit_sources=SOURCES_A_SHARD, stride=4)
    return root


def prepare_images(folder: Path, videos: Path, count: int) -> Path:
    """`count` sources of one picture each, with codes of the videos' frames."""
    from toto import Dataset

    root = folder / f"images-{count}"
    if not (root / "dataset.json").exists():
        click.echo(f"making {count:,} images of tokens in {root}")
        pictures = np.concatenate([row.codes for row in Dataset(videos).rows()]).astype(np.uint16)
        images = [Image(f"{i % 1000:03d}/{i:08d}.jpg", pictures[i % len(pictures)]) for i in range(count)]
        write_tokens(root, images=images, vocab_size=CODES, unit_sources=-(-count // 8))
    return root


def _videos(frames: int, media: Path | None, folder: Path) -> list[Video]:
    rng = np.random.default_rng(0)
    films = [film for path in _files(media, folder) if len(film := _decode(path)) >= LEAST]
    tokenizer = DCT(CODES)
    made: list[Video] = []
    left = frames
    while left > 0:
        film = films[rng.integers(len(films))]
        pace = int(rng.choice([p for p in PACES if len(film) >= p * LEAST]))
        most = min(MOST_FRAMES, len(film) // pace, left)
        first = int(rng.integers(0, len(film) - (most - 1) * pace))
        codes = tokenizer.encode(_square(film[first::pace][:most], rng)).astype(np.uint16)
        made.append(Video(f"train/{len(made):05d}.mp4", codes, runs=tuple(_runs(len(codes)))))
        left -= len(codes)
    return made


def _files(media: Path | None, folder: Path) -> list[Path]:
    if media is None:
        clips = [folder / "footage" / f"{i}.mp4" for i in range(VIDEOS)]
        return [clip if clip.exists() else write_clip(clip, SECONDS, i) for i, clip in enumerate(clips)]
    return sorted(path for path in media.rglob("*") if path.suffix in (".mp4", ".avi", ".mkv", ".webm", ".mov"))


def _decode(path: Path) -> np.ndarray:
    """uint8 [n, H, W, 3], the short side SHORT; at most what 256 frames at the slowest pace take, twice."""
    found = []
    with av.open(str(path), metadata_errors="ignore") as container:
        for frame in container.decode(video=0):
            scale = SHORT / min(frame.width, frame.height)
            width, height = max(SHORT, round(frame.width * scale)), max(SHORT, round(frame.height * scale))
            found.append(frame.to_ndarray(format="rgb24", width=width, height=height))
            if len(found) == 2 * MOST_FRAMES * PACES[-1]:
                break
    return np.stack(found) if found else np.empty((0, SHORT, SHORT, 3), np.uint8)


def _square(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """uint8 [n, 3, 128, 128]: one square of all frames in a light of its own, mirrored every second time."""
    top, left = (int(rng.integers(0, side - SIDE + 1)) for side in frames.shape[1:3])
    square = frames[:, top : top + SIDE, left : left + SIDE]
    contrast, light = rng.uniform(0.8, 1.2), rng.uniform(-20, 20)  # two squares of one video share no codes by chance
    square = np.clip(np.arange(256) * contrast + light, 0, 255).astype(np.uint8)[square]
    return np.ascontiguousarray((square[:, :, ::-1] if rng.integers(2) else square).transpose(0, 3, 1, 2))


def _runs(frames: int) -> Iterator[int]:
    while frames >= RUN + LEAST:
        yield RUN
        frames -= RUN
    if frames:
        yield frames
