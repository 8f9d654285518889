"""What was measured when a dataset was made in one go; kept beside the report for when the demo runs again."""

import json
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import pyarrow.compute as pc

from toto.affinity import cores
from toto.demo import machine
from toto.files import write_whole
from toto.plain import counted
from toto.shards.dataset import Dataset

FILE = "measured.json"


@dataclass(frozen=True)
class Measured:
    """One whole run of `toto-tokenize run`: start of Python and of Ray, decoding, tokenizing, writing, sealing."""

    dataset_id: str
    seconds: float
    frames_decoded: int
    frames_kept: int
    tokens: int
    day: str  # ISO date
    machine: str


def remember(folder: Path, dataset: Dataset, seconds: float) -> None:
    """Writes what a run took that made all of `dataset`."""
    totals = dataset.info["totals"]
    decoded = pc.sum(dataset.sources()["frames_decoded"]).as_py() or 0
    on = f"{machine.cpu()}, {counted(cores(), 'core')}"
    measured = Measured(
        dataset.dataset_id, seconds, decoded, totals["frames"], totals["tokens"], date.today().isoformat(), on
    )
    write_whole(folder / FILE, json.dumps(asdict(measured), indent=1).encode())


def recall(folder: Path, dataset: Dataset) -> Measured | None:
    """What was measured when this very dataset was made; None when it was made in several goes, or elsewhere."""
    try:
        measured = Measured(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return measured if measured.dataset_id == dataset.dataset_id else None
