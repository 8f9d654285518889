"""What a run writes while it goes on: metrics.jsonl, one line a step, and TensorBoard's files.

    {"step": 120, "loss": 2.31, "batch": "9f0c…", "learning_rate": 0.003, "grad_norm": 0.71, "tokens": 983040, …}
    {"step": 200, "validation_loss": 2.40, "validation_by_frame": [4.1, 2.2, …]}

`step` counts finished steps, `batch` is the hash of the sequences of that step: the ledger that proves that a resumed
run saw the same data. Lines after the checkpoint that a run resumes from are dropped: those steps happen again.
"""

import json
import os
from pathlib import Path
from typing import Any

from toto.errors import naming

FILE = "metrics.jsonl"
BOARD = "tensorboard"


class Metrics:
    """The log of one run; of many processes only the first has one."""

    def __init__(self, run: Path, resumed_at: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # takes a second to import

        self._path = run / FILE
        self._drop_after(resumed_at)
        self._file = open(self._path, "a", encoding="utf-8")
        self._board = SummaryWriter(str(run / BOARD), purge_step=resumed_at + 1, flush_secs=30)

    def write(self, values: dict[str, Any]) -> None:
        """Adds a line; its numbers go to TensorBoard too."""
        with naming(self._path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()
        for name, value in values.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, values["step"])
            elif isinstance(value, dict):
                for part, number in value.items():
                    if number is not None:
                        self._board.add_scalar(f"{name}/{part}", number, values["step"])

    def close(self) -> None:
        """Nothing is lost after this."""
        self._file.close()
        self._board.close()

    def _drop_after(self, step: int) -> None:
        """Leaves the lines of steps up to `step`; a line that a kill cut short is none."""
        lines = [line for line in read_metrics(self._path) if line["step"] <= step]
        partial = self._path.with_suffix(".partial")
        with naming(self._path):
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            os.replace(partial, self._path)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl, or of the one in a run's folder; none where there is no file."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        return []
    values = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("step"), int):
            values.append(value)
    return values
