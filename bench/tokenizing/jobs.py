"""Whole jobs: videos on disk -> a finished dataset, from the start of the command to its end.

`dct`: ours under Ray (its own processes run on the same cores) against one straightforward script per core.
`dvae`: frames per second of a job in its steady state, five minutes long, against the encoder alone on decoded frames,
both with one worker per core; the encoder alone is measured before and after.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import encoders
from footage import write_clips
from sides import Line, compare, line

from toto.affinity import cores

HERE = Path(__file__).parent
CLIP_S, CLIPS_A_CORE = 40, 96  # starting Ray takes as long as a dozen clips
WARM_S, STEADY_S = 45, 300  # of the dVAE's job
DVAE_CLIPS_A_CORE = 24
ALONE_S = 60
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


def measure_dvae(repeats: int) -> list[Line]:
    """Kept frames a second; one job, since five minutes are long."""
    what = f"whole job, dvae fp32, {cores()} cores, {STEADY_S} s of its steady state, against the encoder alone"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        spec = encoders.prepare(importlib.import_module("peer_dalle"), folder)
        videos = write_clips(folder / "videos", DVAE_CLIPS_A_CORE * cores(), CLIP_S)[0].parent
        before = encoders.rate_alone("peer_dalle", folder, ALONE_S)
        job = _steady_rate(videos, folder / "out", spec["weights"])
        after = encoders.rate_alone("peer_dalle", folder, ALONE_S)
        return [line(what, "frames/s", [job], [before, after], 0.9)]


def _steady_rate(videos: Path, out: Path, weights: str) -> float:
    """Kept frames a second, between WARM_S after the first one and STEADY_S later; then the run is interrupted."""
    process = _run(videos, out, "--tokenizer", "dvae", "--set", f"tokenizers.dvae.weights={weights}")
    seen: list[tuple[float, int]] = []
    while process.poll() is None and (not seen or seen[-1][0] - seen[0][0] < WARM_S + STEADY_S):
        time.sleep(1)
        for progress in out.glob("shards/tmp/progress-*.json"):
            now = json.loads(progress.read_text())
            if now["counters"]["kept"]:
                seen.append((now["seconds"], now["counters"]["kept"]))
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)  # Ctrl-C is ignored in the background
    process.wait()
    start = next(point for point in seen if point[0] - seen[0][0] >= WARM_S)
    click.echo(f"  {seen[-1][1] - start[1]} frames in {seen[-1][0] - start[0]:.0f} s")
    return (seen[-1][1] - start[1]) / (seen[-1][0] - start[0])


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
    environment = {**os.environ, "XDG_CACHE_HOME": str(videos.parent / "cache")}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)


def _scripts(videos: list[Path], out: Path) -> list[subprocess.Popen]:
    n = cores()
    return [
        subprocess.Popen(
            [sys.executable, "-P", str(HERE / "plain_script.py"), str(out), *map(str, videos[i::n])],
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": str(HERE)},
        )
        for i in range(n)
    ]
