"""Whole jobs: videos on disk -> a finished dataset, from the start of the command to its end.

`dct`: ours under Ray (its own processes run on the same cores) against one straightforward script per core.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from footage import write_clips
from sides import Line, compare

from toto.affinity import cores

HERE = Path(__file__).parent
CLIP_S, CLIPS_A_CORE = 40, 24
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}


def measure_dct(repeats: int) -> list[Line]:
    """Source seconds of 360p video tokenized in a second, both ways on the same cores."""
    count = CLIPS_A_CORE * cores()
    with tempfile.TemporaryDirectory() as folder:
        videos = write_clips(Path(folder) / "videos", count, CLIP_S)

        def ours() -> float:
            return count * CLIP_S / _timed(lambda out: [_run(videos[0].parent, out)], folder)

        def peer() -> float:
            return count * CLIP_S / _timed(lambda out: _scripts(videos, out), folder)

        what = f"whole job, dct, {cores()} cores, {count} clips of {CLIP_S} s 360p, against a script per core"
        return [compare(what, "seconds of video/s", ours, peer, 1.5, repeats)]


def _timed(start, folder: str) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        for process in start(Path(out)):
            if process.wait() != 0:
                raise SystemExit(f"{process.args[:4]} failed")
        return time.perf_counter() - started


def _run(videos: Path, out: Path, *more: str) -> subprocess.Popen:
    code = "from toto.tokenize.cli import main; main()"
    options = ["--set", f"datasets.folder.root={videos}", "--set", "datasets.folder.crop=center", "--quiet"]
    command = [sys.executable, "-P", "-c", code, "run", "folder", "--out", str(out / "shards"), *options, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _scripts(videos: list[Path], out: Path) -> list[subprocess.Popen]:
    n = cores()
    return [
        subprocess.Popen(
            [sys.executable, "-P", str(HERE / "plain_script.py"), str(out), *map(str, videos[i::n])],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(HERE)},
        )
        for i in range(n)
    ]
