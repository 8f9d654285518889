"""kill -9 of trainers at random moments, and the same command until it is done: the same run as without any kill.

A kill takes a run of one process, one of two ranks, both with their torchrun, or one of two ranks that torchrun starts
again by itself; at the start, between two steps, or while a checkpoint is being written. After each, every checkpoint
must be whole and the log must be that of the undisturbed run so far; at the end of a run losses, weights and moments
must be, too: to the bit for one process, within TOLERANCE for two.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from clips import environment
from ray_run import MARK, children, new_mark, processes
from train_toy import batches, command_line, history, losses, state, world

from toto.train import checkpoint

VICTIMS = ("alone", "rank", "ranks", "restarted")
MOMENTS = ("checkpoint", "step", "start", "checkpoint")
RECIPE = {"steps": 120, "checkpoint_every": 4, "validate_every": 20, "keep_checkpoints": 2, "loader_workers": 1}
TOLERANCE = 1e-4  # of losses, weights and moments of two ranks
LATE_S = 0.02  # a kill comes up to so long after the step or checkpoint that it waited for
PATIENCE_S = 300.0
POLL_S = 0.001


class Failure(Exception):
    """A run that should have ended well did not, or what it left is not as it was."""


@dataclass
class Going:
    """A run that is going on, in one process or two."""

    process: subprocess.Popen[bytes]
    ranks: int
    mark: str
    said: Path

    def trainers(self) -> list[int]:
        """pids of the processes that train."""
        if self.ranks == 1:
            return [self.process.pid]
        return [pid for rank in range(self.ranks) for pid in children(self.process.pid, f"RANK={rank}")]

    def wait_until(self, happened: Callable[[], bool]) -> bool:
        """Returns as soon as something happened; False when the run ended before."""
        end = time.monotonic() + PATIENCE_S
        while not happened():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > end:
                raise Failure(f"nothing happens: {self.last_words()}")
            time.sleep(POLL_S)
        return True

    def end(self) -> int:
        """Its exit code; nothing of it is left then."""
        self.wait_until(lambda: self.process.poll() is not None)
        end = time.monotonic() + PATIENCE_S
        while left := processes(self.mark):
            if time.monotonic() > end:
                raise Failure(f"processes stay behind: {list(left.values())[:2]}")
            time.sleep(0.01)
        return self.process.returncode

    def last_words(self) -> str:
        """What it said last."""
        return " / ".join(self.said.read_text(errors="replace").splitlines()[-3:])


class Series:
    """Runs of one kind, one after another, each killed again and again until it is done."""

    def __init__(self, folder: Path, data: Path, victim: str, rng: random.Random) -> None:
        self._data, self._rng, self.victim = data, rng, victim
        self._ranks = 1 if victim == "alone" else 2
        self._folder = Path(tempfile.mkdtemp(dir=folder, prefix=f"{victim}-"))
        self._expected = self._folder / "undisturbed"
        began = time.monotonic()
        going = self._start(self._expected)
        going.wait_until(lambda: bool(batches(self._expected)))
        self._start_s = time.monotonic() - began
        if going.end():
            raise Failure(f"the undisturbed run failed: {going.last_words()}")
        self._runs = 0
        self._going: Going | None = None
        self._next()

    def strike(self, moment: str) -> tuple[str, str]:
        """Kills the run at such a moment: the verdict (same, different, missed), and a line about it."""
        going = self._going or self._start(self._run)
        self._going = None
        if not self._wait_for(going, moment):
            self._finished(going.end(), going)
            return "missed", "the run was over before"
        pids = going.trainers()
        if not pids:
            return "missed", "its processes were being started"
        chosen = self._rng.choice(pids)
        self._kill(going, chosen)
        half = bool(list(self._run.glob(".step-*")))
        if self.victim == "restarted":
            self._going = going
        elif not going.end():
            raise Failure("a killed run ended well")
        wrong = self._wrong_so_far()
        done, kept = len(batches(self._run)), [path.name for path in checkpoint.found(self._run)][-1:]
        text = f"after step {done:2d}, checkpoint {'half written' if half else 'none at hand':12}"
        verdict = "different" if wrong else "same"
        return verdict + (
            " half" if half else ""
        ), f"{text} · goes on from {(kept or ['the start'])[0]} · {wrong or 'same'}"

    def give_up(self) -> None:
        """Ends what is going on, and begins anew."""
        for pid in processes(self._mark):
            _killed(pid)
        self._going = None
        self._next()

    def finish(self) -> None:
        """Lets the run that is going on end, and compares it whole; Failure where it differs."""
        going = self._going or self._start(self._run)
        self._going = None
        self._finished(going.end(), going)

    def _finished(self, code: int, going: Going) -> None:
        if code:
            raise Failure(f"the run failed: {going.last_words()}")
        wrong = self._wrong_so_far() or self._wrong_at_the_end()
        self._next()
        if wrong:
            raise Failure(wrong)

    def _next(self) -> None:
        self._runs += 1
        self._run = self._folder / f"run-{self._runs}"

    def _start(self, run: Path) -> Going:
        words = ["-m", "toto.train", *command_line(self._data, run, **RECIPE)]
        if self._ranks > 1:
            restarts = "--max-restarts=1000" if self.victim == "restarted" else "--max-restarts=0"
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._ranks}", restarts]
            words = [*torchrun, *words]
        self._mark, said = new_mark(), run.with_suffix(".said")
        with open(said, "ab") as file:
            started = subprocess.Popen(
                [sys.executable, *words],
                env=environment(**{MARK: self._mark, "OMP_NUM_THREADS": "1"}),
                stdout=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        return Going(started, self._ranks, self._mark, said)

    def _wait_for(self, going: Going, moment: str) -> bool:
        if moment == "start":
            time.sleep(self._rng.uniform(0, self._start_s))
            return going.process.poll() is None
        before = len(batches(self._run))
        if before and not going.wait_until(lambda: len(batches(self._run)) != before):  # as it begins, it drops some
            return False
        steps = min(len(batches(self._run)) + self._rng.randint(1, 16), RECIPE["steps"] - 2)
        there = going.wait_until(lambda: len(batches(self._run)) >= steps)
        if there and moment == "checkpoint":
            there = going.wait_until(lambda: bool(list(self._run.glob(".step-*"))))
        time.sleep(self._rng.uniform(0, LATE_S))
        return there

    def _kill(self, going: Going, trainer: int) -> None:
        if self.victim == "ranks":
            for pid in (going.process.pid, *going.trainers()):
                _killed(pid)
        else:
            _killed(trainer)

    def _wrong_so_far(self) -> str:
        """What is wrong with the log and the checkpoints; empty when nothing is."""
        told, expected = batches(self._run), batches(self._expected)
        if told != expected[: len(told)]:
            return "OTHER BATCHES"
        if any(abs(a - b) > self._tolerance for a, b in zip(losses(self._run), losses(self._expected), strict=False)):
            return "OTHER LOSSES"
        try:
            for folder in checkpoint.found(self._run):
                state(folder)
        except Exception as error:  # whatever a reader stumbles over
            return f"A CHECKPOINT THAT IS NOT WHOLE: {error}"
        return ""

    def _wrong_at_the_end(self) -> str:
        if len(batches(self._run)) != RECIPE["steps"]:
            return "STEPS ARE MISSING"
        if self._ranks == 1 and history(self._run) != history(self._expected):
            return "ANOTHER LOG"
        mine, theirs = state(self._run), state(self._expected)
        if mine.keys() != theirs.keys():
            return "OTHER TENSORS"
        far = [name for name in theirs if _distance(mine[name], theirs[name]) > self._tolerance]
        return f"OTHER WEIGHTS OR MOMENTS: {', '.join(far[:3])}" if far else ""

    @property
    def _tolerance(self) -> float:
        return 0.0 if self._ranks == 1 else TOLERANCE


def drill_train(folder: Path, kills: int, rng: random.Random) -> Counter[str]:
    """So many kills of trainers; prints one line a kill, and counts them by victim, verdict and moment."""
    data = world(folder / "set")
    counts: Counter[str] = Counter()
    for number, victim in enumerate(VICTIMS):
        share = range(number, kills, len(VICTIMS))
        if not share:
            continue
        series = Series(folder, data, victim, rng)
        moments = [MOMENTS[i % len(MOMENTS)] for i in range(len(share))]
        rng.shuffle(moments)
        while moments:
            _one(series, moments, counts)
        try:
            series.finish()
        except Failure as failure:
            print(f"{victim}: {failure}", flush=True)
            counts["different"] += 1
    return counts


def _one(series: Series, moments: list[str], counts: Counter[str]) -> None:
    """One try at the next of the moments; a strike that missed is none."""
    started = time.monotonic()
    try:
        verdict, said = series.strike(moments[-1])
    except Failure as failure:
        verdict, said = "failed", f"FAILED: {failure}"
        series.give_up()
    moment = f"at its {moments[-1]}" if moments[-1] == "start" else f"in a {moments[-1]}"
    print(f"kill -9 of {series.victim:9} {moment:15} · {said} · {time.monotonic() - started:.0f} s", flush=True)
    first, _, half = verdict.partition(" ")
    counts[first] += 1
    if verdict != "missed":
        counts[series.victim] += 1
        counts["half"] += half == "half"
        moments.pop()


def _killed(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")
