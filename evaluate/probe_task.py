"""`toto-eval probe` from end to end: a checkpoint and the name of a dataset -> a folder with the result.

checkpoint ─▶ model      name or URI ─▶ dataset (made with the model's tokenizer)
probe ─▶ result.json, predictions.parquet, curve.png; pooled features in features/ beside the folder
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import toto
from toto.config import Pipelines
from toto.errors import UsageError
from toto.evaluate.curve import draw_curve
from toto.evaluate.probe import Subject, probe
from toto.evaluate.results import Result, write_result
from toto.evaluate.settings import ProbeSettings
from toto.evaluate.views import class_names
from toto.files import write_whole
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.hashing import json_sha256
from toto.shards.snapshot import DATASET
from toto.train.hardware import choose_device, memory_bytes, use_cores
from toto.train.load import Loaded, check_fits, load_model

CACHE = "features"
HEAD = 64  # channels, at least, of an attention head where the model has none; those of `base` and `large` have as many
MEMORY_SHARE = 4  # token features take at most a quarter of what is free


@dataclass(frozen=True)
class Request:
    """A command line, its defaults filled in."""

    checkpoint: str
    data: str  # URI of the token dataset
    settings: ProbeSettings
    device: str = "auto"
    out: Path | None = None


def data_uri(asked: str | None, task: str, pipelines: Pipelines) -> str:
    """The dataset of a task where none is asked for; a name of pipelines.yaml means its default target."""
    name = asked or pipelines.task(task).data
    return pipelines.shards(name) if name in pipelines.datasets else name


def run_probe(request: Request, say: Callable[[str], None] = lambda text: None) -> Result:
    """Probes and writes the result folder; the same request again reads pooled features from their cache."""
    started = time.monotonic()
    use_cores()
    device = choose_device(request.device)
    if request.out is not None and (request.out / DATASET).is_file():
        raise UsageError(f"--out {request.out} holds a token dataset; give the result a folder of its own")
    loaded, dataset = load_model(request.checkpoint, device), Dataset(request.data)
    settings = checked(request.settings, loaded, dataset)
    name = f"{loaded.path.parent.name}/{loaded.path.name}"
    out = request.out or loaded.path.parent / "eval" / _folder_name(settings, loaded, dataset)
    say(f"{name} on {dataset.store.uri}: {settings.protocol}")
    heads = loaded.config.heads or _heads_of_width(loaded.config.dim)
    subject = Subject(loaded.model, loaded.config.layers, loaded.used_ids, heads, loaded.id, str(device))
    memory = memory_bytes(device) // MEMORY_SHARE
    outcome = probe(subject, dataset, settings, out.parent / CACHE, say, memory)
    facts = {
        "checkpoint": _checkpoint(loaded, name),
        "dataset": {"uri": dataset.store.uri, "id": dataset.dataset_id, "tokenizer": dataset.tokenizer["name"]},
        "made_by": {
            "toto": toto.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "seconds": round(time.monotonic() - started, 2),
        },
    }
    result = write_result(out, outcome, facts, class_names(dataset, settings.labels, outcome.classes))
    write_whole(out / "curve.png", draw_curve(result))
    return result


def checked(settings: ProbeSettings, loaded: Loaded, dataset: Dataset) -> ProbeSettings:
    """The settings with their stride filled in (the model's, else the stored one), when model and dataset fit them and
    one another; UserError or UsageError otherwise."""
    if settings.train_split == settings.test_split:
        raise UsageError(f"--train-split and --val-split are both {settings.test_split}: a probe is judged on others")
    first = dataset.row(0).record
    check_fits(loaded, dataset.tokenizer, (first.grid_h, first.grid_w), dataset.store.uri)
    cells = loaded.grid[0] * loaded.grid[1]
    if settings.frames * cells > loaded.context:
        most = loaded.context // cells
        raise UsageError(
            f"--frames {settings.frames}: {loaded.place} was trained on {loaded.context:,} positions, "
            f"{counted(most, 'frame')} at most"
        )
    unknown = [layer for layer in settings.layers or () if not 0 <= layer <= loaded.config.layers]
    if unknown:
        raise UsageError(f"--layers {unknown[0]}: {loaded.place} has layers 0 (embedding) to {loaded.config.layers}")
    if settings.frames == 1:
        return replace(settings, stride=None)
    return replace(settings, stride=settings.stride or loaded.stride or dataset.info["settings"]["stride"])


def _heads_of_width(dim: int) -> int:
    """Heads of the same width for a model without attention: as many as have HEAD channels or more."""
    return next((heads for heads in range(dim // HEAD, 1, -1) if dim % heads == 0), 1)


def _folder_name(settings: ProbeSettings, loaded: Loaded, dataset: Dataset) -> str:
    """Protocol, step and dataset in words, and a hash of all settings: other questions go to other folders."""
    asked = json_sha256({"settings": asdict(settings), "dataset": dataset.dataset_id})[:6]
    protocol, name = settings.protocol.replace("@", "-"), str(dataset.info["name"])
    return f"{protocol}-{loaded.path.name}-{name}-{asked}"


def _checkpoint(loaded: Loaded, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": loaded.place,
        "id": loaded.id,
        "step": loaded.step,
        "model": loaded.config.name,
        "layers": loaded.config.layers,
        "tokenizer": loaded.tokenizer["id"],
    }
