"""What a real run spends outside of forward, backward and optimiser: waiting for data, logging, saving checkpoints.

`toto-train pretrain` with the recipe's defaults, but for short: its own clock (train/watch/clock.py) says where the
seconds went. The first log interval, in which workers start, is left out. Checkpoints count as often as the recipe
saves one; what the background writes of them while steps go on counts as part of the steps.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
from sides import Line

from toto.config import load
from toto.train.checkpoint import found

FRAMES = 4  # of a sequence: 1,024 tokens
MOST = 0.02  # of the time of the steps
BESIDE = ("data", "log", "agree")  # parts of every step


@dataclass(frozen=True)
class Run:
    """How long it is: a step of the paper, 256 sequences of 4,096 tokens, takes hours on a CPU."""

    steps: int
    sequences: int  # of a step
    log_every: int


RUNS = {"base": Run(6, 2, 2), "tiny": Run(20, 2, 5)}


def measure(root: Path, sizes: tuple[str, ...]) -> list[Line]:
    """The share of the steps' time, for every size."""
    return [_measured(root, size, RUNS.get(size, RUNS["base"])) for size in sizes]


def _measured(root: Path, size: str, run: Run) -> Line:
    with tempfile.TemporaryDirectory() as folder:
        told, done, saves = _run(root, size, run, Path(folder))
    counted = told[1:]  # of each log interval
    steps = run.log_every * len(counted)
    beside = {name: sum(part.get(name, 0.0) for part in counted) / steps for name in BESIDE}
    step = sum(part["wall"] - part.get("checkpoint", 0.0) for part in counted) / steps
    every = load().recipe("pretrain").checkpoint_every
    beside["checkpoint"] = done["seconds"].get("checkpoint", 0.0) / saves / every
    share = sum(beside.values()) / (step - sum(beside[name] for name in BESIDE))
    click.echo(
        f"  of a step of {step:.2f} s: "
        + ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in beside.items())
        + f" (one save in {every:,} steps)"
    )
    what = f"a run of {size}, {steps} steps of {run.sequences}x{FRAMES * 256:,} tokens: beside the steps, of their time"
    click.echo(f"{what}: {share:.3%} (at most {MOST:.0%})\n")
    return {"what": what, "ours": share, "peer": MOST, "unit": "share", "ratio": MOST / share, "bar": 1}


def _run(root: Path, size: str, run: Run, folder: Path) -> tuple[list[dict], dict, int]:
    """Seconds of every log interval by name, the command's JSON, and how many checkpoints it saved."""
    settings = {
        "frames": FRAMES,
        "batch_tokens": run.sequences * FRAMES * 256,
        "steps": run.steps,
        "checkpoint_every": run.steps // 2,
        "log_every": run.log_every,
    }
    options = [word for name, value in settings.items() for word in ("--set", f"recipes.pretrain.{name}={value}")]
    command = [sys.executable, "-P", "-m", "toto.train", "pretrain", "--size", size, "--data", str(root)]
    ended = subprocess.run(
        [*command, "--out", str(folder / "run"), "--json", *options], check=True, stdout=subprocess.PIPE
    )
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line["seconds"] for line in lines if "seconds" in line]
    return told, json.loads(ended.stdout.splitlines()[-1]), len(found(folder / "run"))
