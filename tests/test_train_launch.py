"""The scripts of docs/launch do what they say: SLURM's, with srun and scontrol played by a few lines."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clips import ROOT, environment
from ray_run import children
from train_toy import batches, command_line, world

from toto.train import checkpoint

SRUN = """#!{python}
# as many tasks as SLURM_NTASKS; the highest exit code
import os, subprocess, sys
words = sys.argv[2:]  # after --kill-on-bad-exit=1
tasks = [
    subprocess.Popen(words, env=os.environ | dict(SLURM_PROCID=str(i), SLURM_LOCALID=str(i)))
    for i in range(int(os.environ["SLURM_NTASKS"]))
]
sys.exit(max(task.wait() for task in tasks))
"""
PYTHON = """#!/bin/sh
exec {python} "$@"
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "{asked}"; fi
"""


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the tasks through /proc")
def test_a_job_of_slurm_that_gets_sigterm_saves_and_is_queued_again(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("python", PYTHON), ("scontrol", SCONTROL)):
        (tools / name).write_text(text.format(python=sys.executable, asked=tmp_path / "asked"))
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    kind, *arguments = command_line(data, run, steps=100_000, checkpoint_every=50_000, validate_every=0)
    assert kind == "pretrain"
    started = subprocess.Popen(
        ["bash", str(ROOT / "docs/launch/slurm.sh"), *arguments],
        env=environment(PATH=path, SLURM_NTASKS_PER_NODE="2", **job),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while len(batches(run)) < 4 and started.poll() is None:
        time.sleep(0.02)
    assert started.poll() is None, started.communicate()[0]
    (srun,) = children(started.pid, "SLURM_NTASKS=2")
    for task in children(srun, "SLURM_NTASKS=2"):
        os.kill(task, signal.SIGTERM)
    said, _ = started.communicate(timeout=200)
    assert started.returncode == 143, said
    assert (tmp_path / "asked").read_text() == f"requeue {os.getpid()}\n"
    (saved,) = checkpoint.found(run)
    assert f"saved {saved}" in said and "2 × cpu" in said and checkpoint.read_facts(saved)["step"] == len(batches(run))
