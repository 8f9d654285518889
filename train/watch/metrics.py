"""metrics.jsonl: what a run writes while it goes on, one line a step.

    {"step": 120, "loss": 2.31, "batch": "9f0c…", "learning_rate": 0.003, "grad_norm": 0.71, "tokens": 983040, …}
    {"step": 200, "validation_loss": 2.40, "validation_by_frame": [4.1, 2.2, …]}

`step` counts finished steps, `batch` is the hash of the sequences of that step: the ledger that proves that a resumed
run saw the same data. Lines after the checkpoint that a run resumes from are dropped: those steps happen again.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toto.errors import naming

FILE = "metrics.jsonl"
LONGEST = 1 << 20  # characters of a line; what is longer is none of ours
MOST_STEPS = 1 << 48


class Lines:
    """The file of one run, open to write; of many processes only the first has it."""

    def __init__(self, run: Path, resumed_at: int) -> None:
        self._path = run / FILE
        self._drop_after(resumed_at)
        self._file = open(self._path, "a", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        """Adds a line, whole."""
        with naming(self._path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def picture(self, step: int, name: str, path: Path) -> None:
        """Pictures lie in the run's folder already."""

    def close(self) -> None:
        """Nothing is lost after this."""
        self._file.close()

    def _drop_after(self, step: int) -> None:
        """Leaves the lines of steps up to `step`; a line that a kill cut short is none."""
        partial = self._path.with_suffix(".partial")
        with naming(self._path):
            with open(partial, "w", encoding="utf-8") as kept:
                kept.writelines(json.dumps(line) + "\n" for line in metric_lines(self._path) if line["step"] <= step)
            os.replace(partial, self._path)


def metric_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, or of the one in a run's folder, one at a time: a long run has a million of
    them; none where there is no file. The file may be a stranger's: what is no line of a step is left out."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        return
    with open(file, encoding="utf-8", errors="replace") as lines:
        for line in iter(lambda: lines.readline(LONGEST), ""):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            step = value.get("step") if isinstance(value, dict) else None
            if isinstance(step, int) and 0 <= step < MOST_STEPS:
                yield value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All of them."""
    return list(metric_lines(path))
