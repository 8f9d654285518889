"""Seconds to the first batch over 100,000 small samples, and to a batch deep inside an epoch; a new process each time.

A batch is 1,024 images (64 sequences of 16). What counts is what a training job waits for: opening, indexing,
shuffling, reading; imports do not. How each resumes stands in its module.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import baked
import ours
from rates import Pair, compare_both
from sides import Line

IMAGES, BATCH, DEEP = 100_000, 1_024, 0.9
HERE = Path(__file__).resolve().parent


def measure(root: Path, repeats: int) -> list[Line]:
    """Rates are batches a second, 1 / the time of the first one, so that above 1 is ours."""
    ours.save_recipe(root)
    lines = []
    for peer in baked.peers("first batch"):
        folder = baked.bake(peer, root, baked.images(root))
        for what, deep in (
            (f"first batch of {IMAGES:,} images", 0),
            ("a batch at 90 % of an epoch, resumed", DEEP),
        ):
            lines += compare_both(
                f"{what}, a new process, against {peer.NAME}",
                "1/s",
                lambda deep=deep: _rates("ours", root, deep),
                lambda deep=deep, peer=peer, folder=folder: _rates(peer.__name__, folder, deep),
                1,
                repeats,
            )
    return lines


def _rates(side: str, folder: Path, deep: float) -> Pair:
    words = [str(HERE / "open_process.py"), side, str(folder), str(int(deep * IMAGES))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-P", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{side} failed: {done.stderr[-2000:]}")
    clock, cpu = json.loads(done.stdout.splitlines()[-1])
    return 1 / clock, 1 / cpu
