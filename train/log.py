"""The log of a run: sums that steps leave on the device -> lines of metrics.jsonl, TensorBoard, and the live line.

Losses are read every few steps only, because reading waits for the GPU. A loss that is not finite ends the run there,
before anything of it is saved.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from toto.errors import UserError
from toto.train.metrics import Metrics
from toto.train.parallel import Team
from toto.train.position_loss import PositionLoss
from toto.train.progress import Progress

MOST_NOT_FINITE = 8  # steps in a row that are skipped: what comes after them would be no better


@dataclass(frozen=True)
class Done:
    """How a call of `train` ended."""

    checkpoint: Path
    step: int
    loss: float | None  # of the last step; None where nothing was left to do
    validation_loss: float | None
    tokens_per_s: float | None  # median over the log
    mfu: float | None


@dataclass
class StepSums:
    """What one step adds up, still on the device: reading it would wait for the GPU."""

    step: int
    losses: torch.Tensor  # float64 [parts, 2]: loss and number of tokens of each part of the mixture
    grad_norm: torch.Tensor
    ledger: torch.Tensor  # int64: hash of the batch
    rate: float
    skipped: torch.Tensor | None  # 0 or 1; None where no step is skipped


class RunLog:
    """Collects what steps add up; every process checks it, the first one writes it."""

    def __init__(
        self,
        folder: Path,
        parts: list[str],
        flops_per_token: float,
        peak_flops: float,
        team: Team,
        steps: range,
        write_spike: Callable[[int, float | None, float | None], Path],
    ) -> None:
        self._folder, self._parts, self._write_spike = folder, parts, write_spike
        self._flops, self._peak = flops_per_token, peak_flops
        self._metrics = Metrics(folder, steps.start) if team.is_first else None
        self._progress = Progress(steps.start, steps.stop, team.is_first)
        self._waiting: list[StepSums] = []
        self._not_finite_in_a_row = 0
        self._since = time.perf_counter()
        self._speeds: list[float] = []
        self._loss: float | None = None
        self._validation: float | None = None

    def add(self, sums: StepSums) -> None:
        """One step, not read yet."""
        self._waiting.append(sums)

    def flush(self) -> None:
        """Reads and writes what was added; UserError when a loss or a gradient is not finite, and was not skipped, or
        the MOST_NOT_FINITE-th in a row."""
        if not self._waiting:
            return
        tables = [(sums, sums.losses.tolist(), float(sums.grad_norm)) for sums in self._waiting]  # waits for the device
        seconds = time.perf_counter() - self._since
        tokens = sum(count for _, table, _ in tables for _, count in table)
        speed = tokens / seconds
        for sums, table, norm in tables:
            self._line(sums, table, norm, speed)
        self._speeds.append(speed)
        self._progress.show(tables[-1][0].step + 1, self._loss or math.nan, speed, self._mfu(speed))
        self._waiting.clear()
        self._since = time.perf_counter()

    def validation(self, step: int, found: PositionLoss) -> None:
        """The held-out loss after `step` steps; UserError when it is not finite."""
        if not math.isfinite(found.mean):
            raise self._not_finite(step, f"the held-out loss is {found.mean}")
        self._validation = found.mean
        if self._metrics:
            by_frame = [round(value, 6) for value in found.by_frame.tolist()]
            self._metrics.write({"step": step, "validation_loss": found.mean, "validation_by_frame": by_frame})
        self.say(f"step {step:,}  validation loss {found.mean:.4f} nats over {found.sequences:,} held-out sequences")

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside does not count as training time."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._progress.say(text)

    def done(self, checkpoint: Path, step: int) -> Done:
        """What this call came to; the first log interval, which warms up, counts only where it is all there is."""
        speeds = self._speeds[1:] or self._speeds
        speed = median(speeds) if speeds else None
        mfu = None if speed is None else self._mfu(speed)
        return Done(checkpoint, step, self._loss, self._validation, speed, mfu)

    def close(self) -> None:
        """Ends the live line and the files."""
        self._progress.close()
        if self._metrics:
            self._metrics.close()

    def _line(self, sums: StepSums, table: list[list[float]], norm: float, speed: float) -> None:
        total, count = (sum(column) for column in zip(*table, strict=True))
        loss, step = total / count, sums.step + 1
        skipped = sums.skipped is not None and bool(sums.skipped)
        self._refuse_not_finite(step, loss, norm, skipped)
        if skipped:
            self._tell_spike(step, loss, norm)
        else:
            self._loss = loss
        if self._metrics:
            parts = zip(self._parts, table, strict=True)
            by_part = {name: _finite(part / tokens) for name, (part, tokens) in parts if tokens}
            self._metrics.write(
                {
                    "step": step,
                    "loss": _finite(loss),
                    "batch": f"{int(sums.ledger) % 2**64:016x}",
                    "learning_rate": sums.rate,
                    "grad_norm": _finite(norm),
                    "tokens": int(count),
                    "tokens_per_s": round(speed, 1),
                    "mfu": round(self._mfu(speed), 5),
                    "losses": by_part,
                    **({"skipped": True} if skipped else {}),
                }
            )

    def _refuse_not_finite(self, step: int, loss: float, norm: float, skipped: bool) -> None:
        wrong = next((f"the {w} is {n}" for w, n in (("loss", loss), ("gradient", norm)) if not math.isfinite(n)), "")
        self._not_finite_in_a_row = self._not_finite_in_a_row + 1 if wrong else 0
        if wrong and (not skipped or self._not_finite_in_a_row >= MOST_NOT_FINITE):
            raise self._not_finite(step, wrong)

    def _tell_spike(self, step: int, loss: float, norm: float) -> None:
        """Says that a step was skipped, and writes down what it read."""
        if self._metrics:
            path = self._write_spike(step, _finite(loss), _finite(norm))
            self.say(f"step {step:,}  skipped: loss {loss:.4g}, gradient {norm:.3g}; what it read is in {path}")

    def _not_finite(self, step: int, what: str) -> UserError:
        return UserError(
            f"step {step:,}: {what}; the run stops, its last checkpoint is from before. Lower the learning rate,\n"
            f"or look at the batch: toto-shards seen --run {self._folder} --step {step}"
        )

    def _mfu(self, tokens_per_s: float) -> float:
        return tokens_per_s * self._flops / self._peak


def _finite(number: float) -> float | None:
    """The number as JSON knows it: there is no NaN in it."""
    return number if math.isfinite(number) else None
