"""A probe's result on disk: result.json (numbers, and all that made them) and predictions.parquet (one row for each
test source and head), so that any two results can be compared source by source.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UserError, naming
from toto.evaluate.interval import LEVEL, wilson
from toto.evaluate.outcome import HeadResult, Outcome, true_ranks
from toto.evaluate.settings import ONE_FRAME, POOLINGS
from toto.files import write_whole
from toto.lazy import cached_property
from toto.plain import counted
from toto.shards.parquet import parquet_bytes, read_parquet

FORMAT = 1
RESULT, PREDICTIONS = "result.json", "predictions.parquet"
TOP5_CLASSES = 5  # with so many or fewer, top-5 says nothing
PREDICTIONS_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),  # the dataset's
        pa.field("layer", pa.int16(), nullable=False),
        pa.field("pooling", pa.string(), nullable=False),
        pa.field("prediction", pa.int32(), nullable=False),  # the dataset's label of the class that scores highest
        pa.field("rank", pa.int32(), nullable=False),  # classes that score higher than the true one
        pa.field("probability", pa.float32(), nullable=False),  # of the true class
    ]
)


@dataclass(frozen=True)
class Result:
    """A result folder, read."""

    path: Path
    value: dict[str, Any]  # result.json

    @property
    def chosen(self) -> tuple[int, str]:
        """(layer, pooling) that the held-out sources chose."""
        return self.value["chosen"]["layer"], self.value["chosen"]["pooling"]

    @property
    def title(self) -> str:
        """Protocol and checkpoint, in a few words."""
        return f"{self.value['protocol']}, {self.value['checkpoint']['name']}"

    def head(self, layer: int, pooling: str) -> dict[str, Any]:
        """The numbers of one head; UserError where it was not probed."""
        for head in self.value["heads"]:
            if (head["layer"], head["pooling"]) == (layer, pooling):
                return dict(head)
        known = ", ".join(f"{head['layer']} {head['pooling']}" for head in self.value["heads"])
        raise UserError(f"{self.path}: no head of layer {layer}, pooling {pooling}; there are: {known}")

    def predictions(self, layer: int, pooling: str) -> pa.Table:
        """Rows of one head, by source."""
        table = self._table
        here = np.array(table["layer"].to_pylist()) == layer
        mine = pa.array(here & (np.array(table["pooling"].to_pylist(), object) == pooling))
        return table.filter(mine).sort_by("source")

    @cached_property
    def _table(self) -> pa.Table:
        with naming(self.path / PREDICTIONS):
            table = read_parquet((self.path / PREDICTIONS).read_bytes())
        if table.schema.names != PREDICTIONS_SCHEMA.names:
            raise UserError(f"{self.path / PREDICTIONS}: not written by this version of toto-eval; probe again")
        return table


def write_result(folder: Path, outcome: Outcome, facts: dict[str, Any], names: list[str]) -> Result:
    """Writes both files, result.json last; `facts` (dataset, checkpoint, made_by) go in as they are, `names` are the
    classes'."""
    value = {**result_value(outcome, names), **facts}
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / PREDICTIONS, parquet_bytes(_predictions(outcome)))
    write_whole(folder / RESULT, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())
    return Result(folder, value)


def read_result(path: str | Path) -> Result:
    """The result in a folder (or of its result.json); UserError where there is none."""
    folder = Path(path).parent if Path(path).name == RESULT else Path(path)
    try:
        value = json.loads((folder / RESULT).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} holds no {RESULT}; toto-eval probe writes one") from None
    except ValueError:
        raise UserError(f"{folder / RESULT}: damaged, not JSON; probe again") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{folder / RESULT}: not of format {FORMAT}, which this version reads")
    if not _is_result(value):
        raise UserError(f"{folder / RESULT}: damaged, or not written by toto-eval; probe again")
    return Result(folder, value)


def result_value(outcome: Outcome, names: list[str]) -> dict[str, Any]:
    """The numbers of an outcome as JSON: `top1`, `interval` … are those of the chosen head."""
    heads = [_head_value(head, outcome) for head in outcome.heads]
    best = next(head for head in heads if (head["layer"], head["pooling"]) == outcome.chosen)
    settings = {**asdict(outcome.settings), "layers": sorted({head.layer for head in outcome.heads})}
    return {
        "format": FORMAT,
        "task": "probe",
        "protocol": outcome.settings.protocol,
        **{name: best[name] for name in ("top1", "top5", "interval")},
        "interval_kind": f"Wilson, {100 * LEVEL:.0f} %, over {counted(len(outcome.sources), 'source')}",
        "chosen": {name: best[name] for name in ("layer", "pooling", "penalty", "held_out_top1")},
        "chosen_on": counted(outcome.counts["held_out"], "held-out training source"),
        "chance": 1 / len(outcome.classes),
        "majority": float((outcome.labels == outcome.majority).mean()),
        "classes": [{"label": label, "name": name} for label, name in zip(outcome.classes, names, strict=True)],
        "counts": outcome.counts,
        "heads": heads,
        "configuration": settings,
    }


def _is_result(value: dict[str, Any]) -> bool:
    """Whether a stranger's result.json has numbers where pages and tables expect them, and known poolings."""
    heads, chosen, counts = value.get("heads"), value.get("chosen"), value.get("counts")
    if not (isinstance(heads, list) and heads and isinstance(chosen, dict) and isinstance(counts, dict)):
        return False
    texts = ("protocol", "interval_kind", "chosen_on")
    return (
        all(isinstance(value.get(name), str) for name in texts)
        and all(_is_number(value.get(name)) for name in ("top1", "chance", "majority"))
        and all(_is_number(count) for count in counts.values())
        and all(isinstance(value.get(name), dict) for name in ("checkpoint", "dataset", "made_by", "configuration"))
        and all(isinstance(kind, dict) and {"label", "name"} <= kind.keys() for kind in value.get("classes", [None]))
        and all(isinstance(head, dict) and _is_head(head) for head in heads)
        and any((head["layer"], head["pooling"]) == (chosen.get("layer"), chosen.get("pooling")) for head in heads)
    )


def _is_head(head: dict[str, Any]) -> bool:
    interval = head.get("interval")
    return (
        type(head.get("layer")) is int
        and head.get("pooling") in (*POOLINGS, ONE_FRAME)
        and isinstance(interval, list)
        and len(interval) == 2
        and all(map(_is_number, [*interval, head.get("top1"), head.get("held_out_top1")]))
        and all(head.get(name) is None or _is_number(head[name]) for name in ("penalty", "top5"))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _head_value(head: HeadResult, outcome: Outcome) -> dict[str, Any]:
    ranks = true_ranks(head.scores, outcome.labels)
    correct = int((ranks == 0).sum())
    top5 = float((ranks < 5).mean()) if len(outcome.classes) > TOP5_CLASSES else None
    return {
        "layer": head.layer,
        "pooling": head.pooling,
        "penalty": head.penalty,
        "held_out_top1": head.held_out_top1,
        "top1": correct / len(ranks),
        "top5": top5,
        "interval": list(wilson(correct, len(ranks))),
    }


def _predictions(outcome: Outcome) -> pa.Table:
    labels = np.array(outcome.classes, np.int32)
    count = len(outcome.sources)
    tables = []
    for head in outcome.heads:
        columns = [
            outcome.sources,
            labels[outcome.labels],
            np.full(count, head.layer, np.int16),
            [head.pooling] * count,
            labels[head.scores.argmax(1)],
            true_ranks(head.scores, outcome.labels).astype(np.int32),
            head.scores[np.arange(count), outcome.labels],
        ]
        arrays = [pa.array(column, kind.type) for column, kind in zip(columns, PREDICTIONS_SCHEMA, strict=True)]
        tables.append(pa.Table.from_arrays(arrays, schema=PREDICTIONS_SCHEMA))
    return pa.concat_tables(tables)
