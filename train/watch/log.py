"""The log of a run: sums that steps leave on the device -> values for every sink, and the live line.

    steps ─▶ StepSums ─every log_every steps─▶ losses, rates, speeds ─▶ Sinks
                                               └ where the seconds went, once for all of these steps

Losses are read every few steps only, because reading waits for the GPU. A loss that is not finite ends the run there,
before anything of it is saved.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from toto.errors import UserError
from toto.plain import counted
from toto.train.parallel import Team
from toto.train.position_loss import PositionLoss
from toto.train.watch.clock import Clock
from toto.train.watch.progress import Progress
from toto.train.watch.sinks import Sinks
from toto.train.watch.values import Done, StepSums, Yardstick

MOST_NOT_FINITE = 8  # steps in a row that are skipped: what comes after them would be no better


class RunLog:
    """Collects what steps add up; every process checks it, the first one writes it (the others have no sinks)."""

    def __init__(
        self,
        folder: Path,
        parts: list[str],
        yardstick: Yardstick,
        team: Team,
        steps: range,
        sinks: Sinks | None,
        write_spike: Callable[[int, float | None, float | None], Path],
    ) -> None:
        self._folder, self._parts, self._write_spike = folder, parts, write_spike
        self._yardstick, self._sinks = yardstick, sinks
        self._progress = Progress(steps.start, steps.stop, team.is_first)
        self._waiting: list[StepSums] = []
        self._not_finite_in_a_row = 0
        self.clock = Clock()
        self._seconds: dict[str, float] = {}
        self._read_at = time.perf_counter()
        self._paused = 0.0  # seconds since then
        self._speeds: list[float] = []
        self._loss: float | None = None
        self._validation: PositionLoss | None = None
        self.saved = steps.start  # the step of the newest checkpoint; 0: there is none

    def add(self, sums: StepSums) -> None:
        """One step, not read yet."""
        self._waiting.append(sums)

    def flush(self) -> None:
        """Reads and writes what was added; UserError when a loss or a gradient is not finite, and was not skipped, or
        the MOST_NOT_FINITE-th in a row."""
        if not self._waiting:
            return
        tables = [(sums, sums.losses.tolist(), float(sums.grad_norm)) for sums in self._waiting]  # waits for the device
        training, spent = self._lap()
        with self.clock("log"):
            speed = sum(count for _, table, _ in tables for _, count in table) / training
            self._yardstick.saw(speed)
            for sums, table, norm in tables:
                told = {"seconds": spent} if sums is self._waiting[-1] else {}
                self._line(sums, table, norm, speed, told)
            self._speeds.append(speed)
            done, (mfu, palm) = tables[-1][0].step + 1, self._mfu(speed)
            self._progress.show(done, self._loss or math.nan, speed, mfu, palm)
        self._waiting.clear()

    def validation(self, step: int, found: PositionLoss) -> None:
        """The held-out loss after `step` steps; UserError when it is not finite."""
        if not math.isfinite(found.mean):
            raise self._not_finite(step, f"the held-out loss is {found.mean}")
        self._validation = found
        if self._sinks:
            self._sinks.write(
                {
                    "step": step,
                    "validation_loss": found.mean,
                    "validation_error": found.error,
                    "validation_by_frame": [round(value, 6) for value in found.by_frame.tolist()],
                    "validation_losses": {name: round(part.mean, 6) for name, part in found.by_source.items()},
                }
            )
        over = counted(found.sequences, "held-out sequence")
        self.say(f"step {step:,}  validation loss {found.mean:.4f} nats over {over}")

    def samples(self, step: int, folder: Path, picture: Path | None, remark: str | None) -> None:
        """Clips that the model made after `step` steps, in a folder of the run; `remark` says why there is no
        picture."""
        if self._sinks:
            self._sinks.write({"step": step, "samples": str(folder.relative_to(self._folder))})
            if picture:
                self._sinks.picture(step, "samples", picture)
        self.say(f"step {step:,}  samples in {folder}" + (f" ({remark})" if remark else ""))

    @contextmanager
    def pause(self, name: str) -> Iterator[None]:
        """What happens inside does not count as training time, but as `name`."""
        started = time.perf_counter()
        with self.clock(name):
            yield
        self._paused += time.perf_counter() - started

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        self._progress.say(text)

    def done(self, checkpoint: str) -> Done:
        """What this call came to; the first log interval, which warms up, counts only where it is all there is."""
        speeds = self._speeds[1:] or self._speeds
        speed = median(speeds) if speeds else None
        mfu, palm = (None, None) if speed is None else self._mfu(speed)
        self._lap()
        mean, over = (None, None) if self._validation is None else (self._validation.mean, self._validation.sequences)
        return Done(checkpoint, self.saved, self._loss, mean, over, speed, mfu, palm, _rounded(self._seconds))

    def close(self) -> None:
        """Ends the live line and the files."""
        self._progress.close()
        if self._sinks:
            self._sinks.close()

    def _lap(self) -> tuple[float, dict[str, float]]:
        """Seconds of training since the last call, and where all of them went."""
        now = time.perf_counter()
        wall = now - self._read_at
        training, spent = wall - self._paused, {"wall": wall, **self.clock.take()}
        self._read_at, self._paused = now, 0.0
        for name, seconds in spent.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        return training, _rounded(spent)

    def _line(self, sums: StepSums, table: list[list[float]], norm: float, speed: float, more: dict[str, Any]) -> None:
        total, count = (sum(column) for column in zip(*table, strict=True))
        loss, step = total / count, sums.step + 1
        skipped = sums.skipped is not None and bool(sums.skipped)
        self._refuse_not_finite(step, loss, norm, skipped)
        if skipped:
            self._tell_spike(step, loss, norm)
        else:
            self._loss = loss
        if self._sinks:
            mfu, palm = self._mfu(speed)
            parts = zip(self._parts, table, strict=True)
            by_part = {name: _finite(part / tokens) for name, (part, tokens) in parts if tokens}
            self._sinks.write(
                {
                    "step": step,
                    "loss": _finite(loss),
                    "batch": f"{int(sums.ledger) % 2**64:016x}",
                    "learning_rate": sums.rate,
                    "grad_norm": _finite(norm),
                    "tokens": int(count),
                    "tokens_per_s": round(speed, 1),
                    "mfu": round(mfu, 5),
                    "mfu_palm": round(palm, 5),
                    "losses": by_part,
                    **more,
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
        if self._sinks:
            path = self._write_spike(step, _finite(loss), _finite(norm))
            self.say(f"step {step:,}  skipped: loss {loss:.4g}, gradient {norm:.3g}; what it read is in {path}")

    def _not_finite(self, step: int, what: str) -> UserError:
        left = "its last checkpoint is from before" if self.saved else "it has no checkpoint yet"
        return UserError(
            f"step {step:,}: {what}; the run stops, {left}. Lower the learning rate,\n"
            f"or look at the batch: toto-shards seen --run {self._folder} --step {step}"
        )

    def _mfu(self, tokens_per_s: float) -> tuple[float, float]:
        return self._yardstick.mfu(tokens_per_s), self._yardstick.mfu_palm(tokens_per_s)


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    """To a tenth of a millisecond."""
    return {name: round(spent, 4) for name, spent in seconds.items()}


def _finite(number: float) -> float | None:
    """The number as JSON knows it: there is no NaN in it."""
    return number if math.isfinite(number) else None
