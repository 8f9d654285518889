"""Small real videos, and the command line on them: what the tests of several stages share."""

import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import warm
from PIL import Image

from toto import Dataset

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 240  # until a command that does not end is given up
PIXELS = ("--tokenizer", "none", "--set", "datasets.folder.keep_pixels=16")  # rows cost nothing but decoding


def write_video(
    path: Path, frames: int, size: tuple[int, int] = (32, 32), seed: int = 0, codec: str = "libx264"
) -> Path:
    """A clip of drifting noise, `size` is (width, height); every frame differs from the one before."""
    rng = np.random.default_rng(seed)
    field = rng.integers(0, 255, (size[1], size[0] * 2, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"preset": "ultrafast", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for i in range(frames):
            shift = i % size[0]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(field[:, shift : shift + size[0]]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_image(path: Path, size: tuple[int, int] = (48, 40), seed: int = 0) -> Path:
    """A PNG of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_clips(folder: Path, count: int, frames: int, first: int = 0) -> Path:
    """`count` clips named clip-000.mp4 …"""
    for i in range(first, first + count):
        write_video(folder / f"clip-{i:03d}.mp4", frames, seed=i)
    return folder


def write_pictures(folder: Path, count: int) -> Path:
    """`count` PNGs of 16×16 in folders of 100; every tenth differs."""
    ten = [write_image(folder / "ten" / f"{i}.png", (16, 16), seed=i).read_bytes() for i in range(10)]
    for i in range(count - 10):
        path = folder / f"{i // 100:03d}" / f"{i:05d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(ten[i % 10])
    return folder


def command(stage: str, *arguments: str | Path) -> list[str]:
    """The command line of a stage, as its console script runs it."""
    code = f"from toto.{stage}.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a command: finds toto as this process does."""
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **extra}


def call(
    stage: str,
    *arguments: str | Path,
    cwd: Path | None = None,
    first: Callable[[], None] | None = None,
    **extra: str,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end in a process that starts warm, or cold where it is given an import path of its own.

    `first` is called in it before the command; `extra` goes into its environment.
    """
    if "PYTHONPATH" in extra:
        return call_cold(stage, *arguments, cwd=cwd, **extra)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "stdout"), Path(folder, "stderr")
        process = warm.start(stage, [*map(str, arguments)], output, environment(**extra), cwd, first)
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([stage, *arguments], SECONDS, *(path.read_text() for path in output))
        stdout, stderr = (path.read_text() for path in output)
    return subprocess.CompletedProcess([stage, *arguments], process.exitcode, stdout, stderr)


def call_cold(
    stage: str, *arguments: str | Path, cwd: Path | None = None, **extra: str
) -> subprocess.CompletedProcess[str]:
    """The same in a fresh Python, as its console script starts it."""
    return subprocess.run(
        command(stage, *arguments),
        capture_output=True,
        text=True,
        env=environment(**extra),
        cwd=cwd,
        timeout=SECONDS,
    )


def short_error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The error of a command that failed with this code: one or two lines, no traceback."""
    lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(("Usage:", "Try "))]
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert 1 <= len(lines) <= 2 and "Traceback" not in done.stderr, done.stderr
    return "\n".join(lines)


def tokenize(videos: Path, out: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """`toto-tokenize run folder` in one process, every frame, on these videos."""
    return call("tokenize", "run", *run_arguments(videos, out), "--ray-address", "local", *arguments, **extra)


def run_arguments(videos: Path, out: Path) -> list[str]:
    """`folder` on these videos, every frame, 32 px."""
    sets = [f"root={videos}", "stride=1", "resolution=32"]
    return [
        "folder",
        "--out",
        str(out),
        "--quiet",
        *(word for s in sets for word in ("--set", f"datasets.folder.{s}")),
    ]


def rows_of(out: Path) -> Counter[str]:
    """The multiset of rows: a hash over every value of each."""
    return Counter(_row_hash(row.record) for row in Dataset(out).rows())


def reasons_of(out: Path) -> dict[str, str]:
    """Source key -> reason, of the sources in quarantine."""
    table = Dataset(out).quarantine()
    return dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def one_line(stderr: str, said: str) -> bool:
    """Whether this is all that a command wrote to stderr: one line of an error that says so."""
    return stderr.count("\n") == 1 and stderr.startswith("error: ") and said in stderr


def killed(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether the command died of SIGKILL."""
    return done.returncode == -signal.SIGKILL


def _row_hash(record: Any) -> str:
    values = [getattr(record, field.name) for field in dataclasses.fields(record)]
    plain = [
        (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value for value in values
    ]
    return hashlib.sha256(repr(plain).encode()).hexdigest()
