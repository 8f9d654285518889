"""Proof that a run of this kind goes on exactly, on this machine: killed, resumed elsewhere, compared step by step.

    whole    ────────────────────────────────▶ N steps, undisturbed
    broken   ───── kill -9 ── other processes, micro-batches, readers ── as at first ───▶ N steps

Both are real runs of `toto-train pretrain` in processes of their own, in a folder that is removed afterwards. However
this ends, none of the processes goes on.
"""

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toto.errors import UserError
from toto.plain import counted
from toto.train.checkpoint import found
from toto.train.run import read_run
from toto.train.watch.metrics import read_metrics

TOLERANCE = 1e-3  # nats: sums over other micro-batches and processes, in bf16 too
POLL_S = 0.02
SAID = ".stderr"  # ends the name of the file beside a run that holds what it says


@dataclass(frozen=True)
class Verdict:
    """What the comparison found."""

    steps: int
    killed_at: int  # steps that its log told of when it was killed
    resumed_from: int  # the checkpoint that it went on from
    processes: tuple[int, ...]  # of its three parts
    batches_equal: bool  # hashes of the batches of all steps
    losses_identical: int  # steps whose losses are the same to the last digit
    max_loss_difference: float

    @property
    def holds(self) -> bool:
        """Whether the broken run saw the same batches, and its losses differ by rounding only."""
        return self.batches_equal and self.max_loss_difference <= TOLERANCE

    def value(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "tolerance": TOLERANCE, "holds": self.holds}


@dataclass(frozen=True)
class Trial:
    """A command line of pretrain, and how it is disturbed."""

    arguments: Sequence[str]  # of `toto-train pretrain`, without --out and --stop-at
    recipe: str
    steps: int
    processes: int  # that resume it
    seed: int

    def run(self, say: Callable[[str], None]) -> Verdict:
        """Does both runs and compares them; UserError when one of them fails."""
        with _folder() as folder:
            whole, broken = folder / "whole", folder / "broken"
            say(f"an undisturbed run of {counted(self.steps, 'step')}")
            self._finish(whole, self.steps, 1)
            for path in found(whole):  # its log is what counts; large ones fill disks
                shutil.rmtree(path)
            alike = (f"precision={read_run(whole)['recipe']['precision']}",)  # `auto` may choose otherwise now
            kill_at = random.Random(self.seed).randint(self.every + 1, self.steps - 2)
            say(f"the same, killed by kill -9 after step {kill_at}")
            told = self._killed(broken, kill_at, alike)
            resumed_from = _newest(broken)
            middle = min(self.steps - 1, told + self.every)
            who = counted(self.processes, "process")
            say(f"resumed from step {resumed_from} by {who} with other micro-batches and readers")
            changed = (*alike, "micro_sequences=1", "loader_workers=1")
            self._finish(broken, middle, self.processes, changed)
            say(f"and from step {middle} as at first")
            self._finish(broken, self.steps, 1, alike)
            return self._compared(folder, told, resumed_from)

    @property
    def every(self) -> int:
        """Steps between checkpoints."""
        return max(1, self.steps // 4)

    def _compared(self, folder: Path, told: int, resumed_from: int) -> Verdict:
        whole, broken = (_by_step(folder / name) for name in ("whole", "broken"))
        pairs = [(whole[step], broken.get(step, {})) for step in sorted(whole)]
        losses = [(one["loss"], other.get("loss")) for one, other in pairs]
        return Verdict(
            steps=len(pairs),
            killed_at=told,
            resumed_from=resumed_from,
            processes=(1, self.processes, 1),
            batches_equal=all(one["batch"] == other.get("batch") for one, other in pairs),
            losses_identical=sum(one == other for one, other in losses),
            max_loss_difference=max(map(_difference, losses)),
        )

    def _finish(self, run: Path, stop_at: int, processes: int, sets: Sequence[str] = ()) -> None:
        with self._started(run, stop_at, processes, sets) as child:
            if child.wait():
                raise _failed(run)

    def _killed(self, run: Path, kill_at: int, sets: Sequence[str]) -> int:
        """Kills the run once its log tells of `kill_at` steps and it has a checkpoint; how many it told of."""
        with self._started(run, self.steps, 1, sets) as child:
            while child.poll() is None and (_last_step(run) < kill_at or not found(run)):
                time.sleep(POLL_S)
            if child.poll():
                raise _failed(run)
        told = _last_step(run)
        if child.returncode != -signal.SIGKILL or told >= self.steps:
            raise UserError(f"the run was over before it could be killed; more --steps than {self.steps}")
        return told

    @contextmanager
    def _started(
        self, run: Path, stop_at: int, processes: int, sets: Sequence[str] = ()
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A run that is going on, with its temporary files beside it; killed, with its ranks, where it still is."""
        with open(run.with_suffix(SAID), "wb") as said:
            child = subprocess.Popen(
                self._command(run, stop_at, processes, sets),
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env={**os.environ, "TMPDIR": str(run.parent)},
            )
        try:
            yield child
        finally:
            _kill(child)

    def _command(self, run: Path, stop_at: int, processes: int, sets: Sequence[str] = ()) -> list[str]:
        kept = (
            f"checkpoint_every={self.every}",
            "keep_checkpoints=1",
            "keep_every=0",
            "log_every=1",
            "validate_every=0",
        )
        words = [word for key in (*kept, *sets) for word in ("--set", f"recipes.{self.recipe}.{key}")]
        launcher = ["-m", "toto.train"]
        if processes > 1:
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launcher]
        own = ["pretrain", *self.arguments, *words, "--out", str(run), "--stop-at", str(stop_at)]
        return [sys.executable, *launcher, *own]


def verdict_text(found: Verdict) -> str:
    """The verdict for a person."""
    batches = "the same batches" if found.batches_equal else "OTHER BATCHES"
    head = f"killed after step {found.killed_at}, resumed from step {found.resumed_from}"
    return (
        f"{head} by {counted(found.processes[1], 'process')}\n"
        f"{batches} in {counted(found.steps, 'step')}; losses identical in {found.losses_identical}, elsewhere within "
        f"{found.max_loss_difference:.1e} nats (allowed {TOLERANCE})"
    )


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="toto-verify-resume-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """kill -9 to a run that still goes on, and to ranks, which torchrun starts in sessions of their own."""
    if child.poll() is None:
        ranks = [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if _parent(stat) == child.pid]
        for group in (child.pid, *ranks):
            with suppress(ProcessLookupError, PermissionError):  # it ended by itself, or leads no group
                os.killpg(group, signal.SIGKILL)
        child.wait()


def _parent(stat: Path) -> int:
    """The parent of a process; 0 where it has just ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _failed(run: Path) -> UserError:
    """What a run that failed said last."""
    lines = run.with_suffix(SAID).read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("error: ")]
    last = (said or lines or ["it ended without a word"])[-1]
    return UserError(f"a run failed: {last.removeprefix('error: ')}")


def _newest(run: Path) -> int:
    """The step of the newest checkpoint, from which a run goes on."""
    return int(found(run)[-1].name.removeprefix("step-"))


def _difference(losses: tuple[float | None, float | None]) -> float:
    one, other = losses
    if one is None or other is None:  # a loss that was not finite, or a step that is missing
        return 0.0 if one == other else math.inf
    return abs(one - other)


def _by_step(run: Path) -> dict[int, dict[str, Any]]:
    return {line["step"]: line for line in read_metrics(run) if "batch" in line}


def _last_step(run: Path) -> int:
    return max(_by_step(run), default=0)
