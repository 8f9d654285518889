"""Launchers that lose and gain what they train on: the same batches and losses as one process has.

A worker of Ray Train is killed, and Ray starts both again; a second node joins a run of torchrun, and is killed.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clips import ROOT, environment
from ray_cluster import RayCluster
from ray_run import actors, children
from train_toy import batches, command_line, losses, trained, world

from toto.train import checkpoint

PATIENCE_S = 300.0
STEPS = 3000  # so many that a second node has the time to join
QUICK = "last_call_timeout=1,keep_alive_interval=1"  # of torchrun's meetings: how long the last may take


def drill_launch(folder: Path, rng: random.Random) -> dict[str, str]:
    """What came of each: "same", or what went wrong. Prints a line for each."""
    data = world(folder / "set")
    changed = {"steps": STEPS, "checkpoint_every": 100, "validate_every": 0, "loader_workers": 1}
    expected = trained(data, folder / "alone", **changed)
    found = {}
    for name, drill in (("ray", _ray_train), ("nodes", _nodes)):
        run, began = folder / name, time.monotonic()
        try:
            drill(folder, command_line(data, run, **changed), run, rng)
            wrong = _wrong(run, expected)
        except RuntimeError as error:
            wrong = str(error)
        found[name] = wrong or "same"
        print(f"{drill.__doc__} {found[name]} · {time.monotonic() - began:.0f} s", flush=True)
    return found


def _ray_train(folder: Path, arguments: list[str], run: Path, rng: random.Random) -> None:
    """One of two workers of Ray Train is killed:"""
    with RayCluster() as cluster:
        script = [
            sys.executable,
            str(ROOT / "docs/launch/ray_train.py"),
            "--address",
            cluster.address,
            "--workers",
            "2",
        ]
        launched = _started(
            [*script, "--storage", str(folder / "records"), *arguments], folder / "ray.said", **cluster.key
        )
        _wait(lambda: bool(checkpoint.found(run)), launched, folder / "ray.said")
        os.kill(rng.choice(actors(cluster.mark, "RayTrainWorker")), signal.SIGKILL)
        _end(launched, folder / "ray.said")
        if len(list((run / "tensorboard").iterdir())) < 2:
            raise RuntimeError("nothing was started again")


def _nodes(folder: Path, arguments: list[str], run: Path, rng: random.Random) -> None:
    """A node joins torchrun and is killed:"""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=drill", f"--rdzv-conf={QUICK}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=3"]
    words = [*torchrun, *meeting, "-m", "toto.train", *arguments]
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    watched = first, _ = _started(words, folder / "first.said", **fresh), folder / "first.said"
    _wait(lambda: bool(checkpoint.found(run)), *watched)
    second = _started(words, folder / "second.said", **fresh)
    _wait(lambda: any("2 × cpu" in (folder / f"{name}.said").read_text() for name in ("first", "second")), *watched)
    told = len(batches(run))
    _wait(lambda: len(batches(run)) > told, *watched)
    for pid in (second.pid, *children(second.pid, "LOCAL_RANK=0")):
        os.kill(pid, signal.SIGKILL)
    second.wait()
    _end(first, folder / "first.said")


def _started(words: list[str], said: Path, **extra: str) -> subprocess.Popen[bytes]:
    with open(said, "wb") as file:
        return subprocess.Popen(words, env=environment(OMP_NUM_THREADS="1", **extra), stdout=file, stderr=file)


def _wait(happened: Callable[[], bool], process: subprocess.Popen[bytes], said: Path) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"over too early, or nothing happens: {said.read_text(errors='replace')[-500:]}")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes], said: Path) -> None:
    if process.wait(PATIENCE_S):
        raise RuntimeError(f"the run failed: {said.read_text(errors='replace')[-500:]}")


def _wrong(run: Path, expected: Path) -> str:
    if batches(run) != batches(expected):
        return "OTHER BATCHES"
    return "" if losses(run) == pytest.approx(losses(expected), abs=1e-3) else "OTHER LOSSES"
