"""The scripts of docs/launch do what they say: SLURM's, with srun, scontrol and python played by a few lines."""

import os
import subprocess
import time
from pathlib import Path

from clips import ROOT, environment
from train_toy import Command, batches, command_line, world

from toto.train import checkpoint

SRUN = """#!/bin/sh
# as many tasks as SLURM_NTASKS; the highest exit code
shift  # --kill-on-bad-exit=1
i=0
while [ $i -lt "$SLURM_NTASKS" ]; do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
    echo $! > "{asked}.$i.task"
    tasks="$tasks $!" i=$((i + 1))
done
highest=0
for task in $tasks; do
    wait "$task"
    code=$?
    [ $code -gt $highest ] && highest=$code
done
exit $highest
"""
PYTHON = """#!/bin/sh
# writes down its environment and its words, which the test trains with, and takes the exit code from there
echo $$ > "{asked}.$RANK.pid"
printf '%s\\0' "$@" > "{asked}.$RANK.words"
env -0 > "{asked}.$RANK"
mv "{asked}.$RANK" "{asked}.$RANK.env"
while [ ! -e "{asked}.$RANK.code" ]; do sleep 0.05; done
exit "$(cat "{asked}.$RANK.code")"
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >> "{asked}"; fi
"""
OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def test_a_job_of_slurm_that_gets_sigterm_saves_and_is_queued_again(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    tools, asked = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    for name, text in (("srun", SRUN), ("python", PYTHON), ("scontrol", SCONTROL)):
        (tools / name).write_text(text.format(asked=asked))
        (tools / name).chmod(0o755)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_JOB_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    kind, *arguments = command_line(data, run, steps=100_000, checkpoint_every=50_000, validate_every=0)
    assert kind == "pretrain"
    started = subprocess.Popen(
        ["bash", str(ROOT / "docs/launch/slurm.sh"), *arguments],
        env=environment(PATH=path, SLURM_NTASKS_PER_NODE="2", **job),
    )
    try:
        ranks = [_rank(asked.with_name(f"asked.{rank}"), run) for rank in range(2)]
        while len(batches(run)) < 4 and all(rank.process.is_alive() for rank in ranks):
            time.sleep(0.02)
        for rank in ranks:
            rank.process.terminate()  # one may have ended by now: the first tells the others
        ends = [rank.ended() for rank in ranks]
        for number, end in enumerate(ends):
            code = asked.with_name(f"asked.{number}.code")
            code.with_suffix(".half").write_text(f"{end.code}\n")
            code.with_suffix(".half").replace(code)
        assert started.wait(200) == 143, ends
    finally:
        started.kill()
    assert asked.read_text() == f"requeue {os.getpid()}\n"
    for number in range(2):  # what SLURM sends to a task reaches Python itself
        task, python = (asked.with_name(f"asked.{number}.{what}").read_text() for what in ("task", "pid"))
        assert task == python
    (saved,) = checkpoint.found(run)
    assert f"saved {saved}" in ends[0].stderr and "2 × cpu" in ends[0].stdout
    assert checkpoint.read_facts(saved)["step"] == len(batches(run))


def _rank(asked: Path, run: Path) -> Command:
    """The rank that a task of srun asked for, when it has asked: `python -m toto.train pretrain …`."""
    while not asked.with_name(f"{asked.name}.env").exists():
        time.sleep(0.02)
    told = dict(line.split("=", 1) for line in asked.with_name(f"{asked.name}.env").read_text().split("\0") if line)
    dash, module, *words = asked.with_name(f"{asked.name}.words").read_text().split("\0")[:-1]
    assert (dash, module) == ("-m", "toto.train")
    return Command(words, run, **{name: told[name] for name in OF_A_RANK})
