"""Decoding and encoding on one core, side by side with the straightforward way, interleaved in one run.

    python bench/one_core.py [--json]

1. decode: a clip to 128 px crops at stride 4. Ours: through the killable child. Peer: PyAV to full RGB, Pillow resize.
2. encode: the `dct` codes of 128 px pictures. Ours: k-d tree. Peer: all distances, in float32 by one matrix product.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import click
import numpy as np
from PIL import Image

from toto.tokenize.clip import DecodeRequest, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.tokenizers.dct import DCT

FRAMES, SIZE, STRIDE, SIDE = 600, (340, 256), 4, 128
REPEATS = 5


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(as_json: bool) -> None:
    """Prints every repetition, medians and ratios."""
    with tempfile.TemporaryDirectory() as folder, Decoder(60, 4096) as decoder:
        clip = write_clip(Path(folder) / "clip.mp4")
        pictures = np.random.default_rng(0).integers(0, 255, (32, 4, 4, 3), dtype=np.uint8)
        pictures = pictures.repeat(SIDE // 4, 1).repeat(SIDE // 4, 2).transpose(0, 3, 1, 2).copy()
        tokenizer = DCT(8192)
        lines = [
            compare(
                "decode 340x256 h264 to 128 px", "frames/s", FRAMES, lambda: ours(decoder, clip), lambda: pillow(clip)
            ),
            compare(
                "encode 128 px, 8,192 codes",
                "frames/s",
                32,
                lambda: tokenizer.encode(pictures),
                lambda: brute(tokenizer, pictures),
            ),
        ]
    if as_json:
        click.echo(json.dumps(lines))


def compare(what: str, unit: str, count: int, ours: Callable[[], object], peer: Callable[[], object]) -> dict:
    """Rates of both, taken in turns; the first turn of each is a warm-up."""
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(REPEATS + 1):
        for function, found in zip((ours, peer), rates, strict=True):
            started = time.perf_counter()
            function()
            if turn:
                found.append(count / (time.perf_counter() - started))
    mine, theirs = (statistics.median(found) for found in rates)
    for name, found in zip(("ours", "peer"), rates, strict=True):
        click.echo(f"{what}: {name} " + " ".join(f"{rate:,.0f}" for rate in found) + f" {unit}")
    click.echo(f"{what}: {mine:,.0f} against {theirs:,.0f} {unit}, {mine / theirs:.2f}×")
    return {"what": what, "ours": mine, "peer": theirs, "unit": unit, "ratio": mine / theirs, "bar": None}


def ours(decoder: Decoder, clip: Path) -> int:
    """Kept frames, as a worker reads them."""
    request = DecodeRequest(
        key=clip.name, uri=str(clip), kind="video", animated=False, stride=STRIDE, fps=None, uniform=None,
        crop="random", resolution=SIDE, patch=8, views=1, run_frames=64, seed=0, pixels=None, codes=True,
    )  # fmt: skip
    return sum(len(part.index) for part in decoder.decode(request) if not isinstance(part, SourceInfo))


def pillow(clip: Path) -> int:
    """The usual loop: every frame to full RGB, every fourth resized by Pillow and cropped."""
    kept = []
    with av.open(str(clip)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for i, frame in enumerate(container.decode(video=0)):
            if i % STRIDE == 0:
                image = Image.fromarray(frame.to_ndarray(format="rgb24"))
                scale = SIDE / min(image.size)
                small = image.resize(
                    (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
                )
                kept.append(np.asarray(small)[:SIDE, :SIDE])
    return len(kept)


def brute(tokenizer: DCT, pictures: np.ndarray) -> np.ndarray:
    """Nearest codes by every distance."""
    n = len(pictures)
    patches = pictures.reshape(n, 3, SIDE // 8, 8, SIDE // 8, 8).transpose(0, 2, 4, 3, 5, 1).reshape(-1, 192)
    vectors = ((patches.astype(np.float32) - 128) @ tokenizer._basis.astype(np.float32))[:, None]
    book = tokenizer._codebook.astype(np.float32)
    norms = (book**2).sum(1)
    return np.concatenate([(norms - 2 * v @ book.T).argmin(1) for v in np.split(vectors[:, 0], n)])


def write_clip(path: Path) -> Path:
    """Moving textures, a new one every five seconds."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for i in range(FRAMES):
            if i % 150 == 0:
                coarse = rng.integers(0, 255, (32, 86, 3), dtype=np.uint8)
                field = np.asarray(Image.fromarray(coarse).resize((SIZE[0] * 2, SIZE[1]), Image.Resampling.BICUBIC))
            shift = 2 * i % SIZE[0]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:, shift : shift + SIZE[0]]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


if __name__ == "__main__":
    main()
