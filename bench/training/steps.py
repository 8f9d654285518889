"""Training steps of ours and of the peers: the same shape, ids, optimiser and precision; a process each, in turns.

    side_process.py ours ─┐
    side_process.py peer ─┼─ one step each, round by round ─▶ tokens/s, CPU seconds, peak memory, MFU
    side_process.py peer ─┘

Peers that are not installed are left out, and said so.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import torch
from machine import has_fast_bf16
from side_process import CODES, SPECIAL
from sides import Line, line, skipped

from toto.affinity import cores
from toto.config import load
from toto.train.cost import Cost
from toto.train.hardware import peak_flops

HERE = Path(__file__).parent
PEERS = {"transformers": "side_transformers", "litgpt": "side_litgpt"}  # package -> module
WANTED = 0.95  # of the better peer's tokens/s


@dataclass(frozen=True)
class Shape:
    """What every side trains."""

    size: str
    context: int
    sequences: int  # of one step, which is one micro-batch
    precision: str
    compile: bool
    threads: int

    @property
    def words(self) -> str:
        """For a row of the table."""
        how = ", compiled" if self.compile else ""
        return f"{self.size}, {self.precision}{how}, {self.sequences}x{self.context:,} tokens a step"


class Side:
    """A side's process."""

    def __init__(self, module: str, shape: Shape) -> None:
        command = [sys.executable, str(HERE / "side_process.py"), module, json.dumps(vars(shape))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told: list[dict] = []

    def close(self) -> None:
        """Ends it: there is no more to read."""
        self._process.communicate()

    def wait(self) -> None:
        """Until the model is there."""
        self._answer("ready")

    def step(self) -> None:
        """One step; its figures are kept."""
        assert self._process.stdin
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        self.told.append(json.loads(self._answer("{")))

    def values(self, name: str) -> list[float]:
        """A figure of every step but the first, which warms up, unless it is the only one."""
        return [told[name] for told in self.told[1:] or self.told]

    def _answer(self, start: str) -> str:
        """The next line that begins so: libraries print others."""
        assert self._process.stdout
        for text in self._process.stdout:
            if text.startswith(start):
                return text
        raise SystemExit(f"{self._process.args[2:4]} ended early")


def measure(shapes: list[Shape], peers: tuple[str, ...], repeats: int, seconds: float) -> list[Line]:
    """For every shape tokens/s and peak memory against each peer, and MFU of all sides; in so many seconds together."""
    end = time.monotonic() + seconds
    found: list[Line] = []
    for i, shape in enumerate(shapes):
        left = (end - time.monotonic()) / (len(shapes) - i)
        found += _measured(shape, peers, repeats, time.monotonic() + left)
    return found


def _measured(shape: Shape, wanted: tuple[str, ...], repeats: int, end: float) -> list[Line]:
    what, lines = f"training, {shape.words}", []
    if shape.precision == "bf16" and not has_fast_bf16():
        click.echo(f"{what}: this processor has no instructions for bf16; a run in `auto` precision takes fp32 here")
    there = [package for package in wanted if importlib.util.find_spec(package)]
    for package in sorted(set(wanted) - set(there)):
        skipped(f"{what}, against {package}", f"{package} is not installed")
    sides = _steps(["side_ours", *(PEERS[package] for package in there)], shape, repeats, end)
    ours, *others = (_tokens_per_second(side, shape) for side in sides)
    for package, theirs in zip(there, others, strict=True):
        bar = WANTED if median(theirs) == max(map(median, others)) else None
        lines.append(line(f"{what}, against {package}", "tokens/s", ours, theirs, bar))
    for package, other in zip(there, sides[1:], strict=True):
        lines.append(_less(f"{what}: CPU time, against {package}", "s", sides[0], other, "cpu_seconds", None))
        lines.append(_less(f"{what}: peak memory, against {package}", "GB", sides[0], other, "peak_bytes", 1))
    _tell_losses_and_mfu(dict(zip(["ours", *there], sides, strict=True)), shape)
    return lines


def _steps(modules: list[str], shape: Shape, repeats: int, end: float) -> list[Side]:
    """All sides after a round to warm up and `repeats` more, or fewer, where those would not end by `end`: so long a
    first round counts."""
    sides: list[Side] = []
    try:
        for module in modules:
            sides.append(Side(module, shape))
            sides[-1].wait()  # one after another: building takes memory too
        for turn in range(repeats + 1):
            began = time.monotonic()
            for side in sides:
                side.step()
            told = " ".join(f"{side.told[-1]['seconds']:.1f}" for side in sides)
            click.echo(f"  round {turn or 'to warm up'}: {told} s", err=True)  # the table comes at the end
            if 2 * time.monotonic() - began > end:
                break
    finally:
        for side in sides:
            side.close()
    return sides


def _tokens_per_second(side: Side, shape: Shape) -> list[float]:
    return [shape.sequences * shape.context / seconds for seconds in side.values("seconds")]


def _less(what: str, unit: str, mine: Side, other: Side, name: str, bar: float | None) -> Line:
    """A figure of which less is better: the ratio is the peer's over ours."""
    scale = 1e-9 if name == "peak_bytes" else 1.0
    ours, theirs = ([value * scale for value in side.values(name)] for side in (mine, other))
    for who, found in (("ours", ours), ("peer", theirs)):
        click.echo(f"  {who} " + " ".join(f"{value:.4g}" for value in found) + f" {unit}")
    pick = max if name == "peak_bytes" else median
    a, b = pick(ours), pick(theirs)
    wanted = "" if bar is None else f" (wanted: more than {bar:g})"
    click.echo(f"{what}: {a:.4g} against {b:.4g} {unit}, {b / a:.2f}×{wanted}\n")
    return {"what": what, "ours": a, "peer": b, "unit": unit, "ratio": b / a, "bar": bar}


def _tell_losses_and_mfu(sides: dict[str, Side], shape: Shape) -> None:
    """The losses show that all do the same work: each starts near ln(8196) = 9.01, on the same ids."""
    cost = Cost(load().model(shape.size), CODES + SPECIAL, shape.context)
    torch.set_num_threads(shape.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak, source = max(peak_flops(device, shape.precision) for _ in range(5))  # others may want the cores meanwhile
    click.echo(f"  MFU, causal attention (PaLM: the whole square), of {peak / 1e12:.3g} TFLOP/s ({source})")
    for name, side in sides.items():
        rate = median(_tokens_per_second(side, shape))
        causal, palm = (rate * f / peak for f in (cost.training_flops_per_token, cost.palm_training_flops_per_token))
        losses = " ".join(f"{told['loss']:.3f}" for told in side.told)
        click.echo(f"  {name}: {causal:.1%} ({palm:.1%}), {rate:,.0f} tokens/s; losses {losses}")
    click.echo()


def shapes_of(
    sizes: tuple[str, ...], contexts: tuple[int, ...], precisions: tuple[str, ...], tokens: int
) -> list[Shape]:
    """What is asked for; nothing given: on a GPU base, large and 1b in bf16, compiled; on a CPU base in fp32."""
    gpu, threads = torch.cuda.is_available(), int(os.environ.get("OMP_NUM_THREADS", cores()))
    sizes = sizes or (("base", "large", "1b") if gpu else ("base",))
    precisions = precisions or (("bf16",) if gpu or has_fast_bf16() else ("fp32",))
    return [
        Shape(size, context, max(1, tokens // context), precision, gpu, threads)
        for size in sizes
        for context in contexts or (1024, 4096)
        for precision in precisions
    ]
