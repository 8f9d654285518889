"""The memory of a worker does not grow with the length of a video: two hours against two minutes."""

import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import environment

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads peak memory from /proc")

FPS = 5
STRIDE = 16
WORKER = """
import sys
from toto.shards.store import open_store
from toto.tokenize.cli import resolve
from toto.tokenize.engine_local import open_worker
from toto.tokenize.estimate import Estimator
from toto.tokenize.plan import extend_plans
from toto.tokenize.run import SourceUris
from toto.tokenize.sources import list_sources
from toto.tokenize.unit import run_unit

def peak_kib(pid):
    (line,) = (line for line in open(f"/proc/{pid}/status") if line.startswith("VmHWM"))
    return int(line.split()[1])

videos, out, stride = sys.argv[1:]
target = resolve("folder", "dct-512", out, (f"datasets.folder.root={videos}", f"datasets.folder.stride={stride}"), ())
listing = list_sources(target.config)
plans = extend_plans(open_store(out), target.job, listing, Estimator(target.job).kept_frames, None)
units = list(plans.units.values())
with open_worker(target.job) as worker:
    for unit in units:
        run_unit(worker, unit, SourceUris(target.config, listing).of(unit.sources))
    print(worker.counters.decoded, worker.counters.kept, peak_kib("self"), peak_kib(worker.decoder.pid))
"""


@dataclass(frozen=True)
class Worked:
    """What a worker did, and the peaks of its resident memory and its decoder's."""

    decoded: int  # frames
    kept: int
    worker_kib: int
    decoder_kib: int


def write_blocks(path: Path, minutes: int) -> Path:
    """A video of 64×48 flat blocks: one minute is encoded, and its packets are repeated."""
    path.parent.mkdir()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "bf": "0", "g": str(FPS)})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        packets = []
        rng = np.random.default_rng(0)
        for _ in range(60 * FPS):
            blocks = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            packets += stream.encode(av.VideoFrame.from_ndarray(blocks, "rgb24"))
        packets += stream.encode(None)
        for minute in range(minutes):
            for i, packet in enumerate(packets):
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, Fraction(1, FPS), packet.is_keyframe
                copy.pts = copy.dts = minute * 60 * FPS + i
                container.mux(copy)
    return path


def work(videos: Path, out: Path) -> Worked:
    """Does the units of a folder as an engine's worker does: frames at 128 px, 256 codes each."""
    words = [sys.executable, "-c", WORKER, str(videos), str(out), str(STRIDE)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return Worked(*map(int, done.stdout.split()))


def test_two_hours_take_as_much_memory_as_two_minutes(tmp_path: Path) -> None:
    """Its kept frames alone would be 111 MB, were they held."""
    found = {}
    for minutes in (2, 120):
        video = write_blocks(tmp_path / str(minutes) / "video.mp4", minutes)
        found[minutes] = work(video.parent, tmp_path / f"set-{minutes}")
        frames = minutes * 60 * FPS
        assert (found[minutes].decoded, found[minutes].kept) == (frames, -(-frames // STRIDE))
    assert found[120].worker_kib <= 1.1 * found[2].worker_kib, found
    assert found[120].decoder_kib <= 1.1 * found[2].decoder_kib, found
