"""A run's folder: everything resolved once, written down, and read again by whoever goes on with it.

    size + recipe + datasets ─prepare─▶ runs/<name>/run.json      what was asked for, with every default
                                                    recipe.json   the stream of sequences, its snapshots pinned
                             ◀──────── Job ────────

A folder that holds a run already is gone on with; asking for something else there is refused.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import toto
from toto.config import Pipelines, RecipeConfig
from toto.errors import UsageError, UserError, naming
from toto.files import write_whole
from toto.shards.dataset import Dataset
from toto.shards.recipe import RECIPE, Kind, Recipe, make_recipe
from toto.shards.store import open_store
from toto.shards.stream import Stream
from toto.shards.streaming.shares import Later, Weight, total
from toto.train.changes import FREE, as_now
from toto.train.checkpoint import found
from toto.train.checkpoint.fetch import is_remote
from toto.train.checkpoint.mirror import Mirror
from toto.train.hardware import faster_precision
from toto.train.loop import Job
from toto.train.parallel import Team
from toto.train.watch.metrics import FILE as METRICS

RUN = "run.json"
KEPT = (RUN, RECIPE, METRICS)  # what a run needs to go on, beside a checkpoint
FORMAT = 1
SECTIONS = {"model": dict, "recipe": dict, "data": list, "validation": dict | None}  # of run.json
SOURCE_KEYS = {"name", "uri", "weight"}
HELD_OUT = "val"
KINDS: dict[str, tuple[Kind, ...]] = {"all": ("video", "image"), "video": ("video",), "image": ("image",)}
OF_STREAM = ("hop",)  # told by the stream's id already


@dataclass(frozen=True)
class Source:
    """A dataset to train on."""

    name: str
    uri: str
    weight: Weight  # from the start; `later_of` says what changes


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    size: str
    recipe: str
    data: tuple[str, ...] = ()  # names or URIs, each with =WEIGHT or not; none: the recipe's mixture
    out: str | None = None
    stop_at: int | None = None


def folder_of(asked: Asked, mirror: Mirror | None = None) -> Path:
    """The run's folder: the one that was asked for, else ${TOTO_RUNS:-runs}/SIZE; of a URI the working folder.

    UsageError where it was asked for by nothing, as an unset variable of a shell does.
    """
    if mirror:
        return mirror.folder
    if asked.out == "":
        raise UsageError("--out is empty; give it a folder or a URI")
    return Path((asked.out or f"{os.environ.get('TOTO_RUNS') or 'runs'}/{asked.size}").removeprefix("file://"))


def mirror_of(asked: Asked) -> Mirror | None:
    """Where the run is kept, when that is no folder of this machine; UsageError, UserError for a URI of no use."""
    return Mirror(asked.out) if asked.out and is_remote(asked.out) else None


def prepare(asked: Asked, pipelines: Pipelines, team: Team, writes: bool = True, mirror: Mirror | None = None) -> Job:
    """The job of a command line: a new one, which is written down, or that of the run that is there.

    UsageError for unknown names and for a folder of another run; UserError where shards are missing.
    """
    model, recipe = pipelines.model(asked.size), pipelines.recipe(asked.recipe)
    folder = folder_of(asked, mirror)
    written = read_run(folder) if (folder / RUN).is_file() else None
    if writes and not found(folder) and not (folder / METRICS).is_file():
        written = None  # a try that did not get as far as a step binds nobody
    if recipe.precision == "auto":
        precision = written["recipe"]["precision"] if written else faster_precision(team.device)
        recipe = replace(recipe, precision=precision)
    sources = find_sources(asked.data, recipe.mixture, pipelines)
    later = later_of(asked.data, recipe.mixture, pipelines)
    wanted = {
        "model": asdict(model),
        "recipe": asdict(recipe),
        "data": [asdict(source) for source in sources],
        "phases": [asdict(phase) for phase in later],
    }
    if written:
        _same(written, wanted, mirror.store.uri if mirror else str(folder))
        stream = _moved(read_stream(folder), sources)
        validation = written["validation"] and _moved(
            Recipe.from_json(json.dumps(written["validation"]), str(folder / RUN)), sources
        )
    else:
        stream = make_stream(sources, recipe, None, later)
        validation = _validation(stream, sources, recipe)
    if stream.batch_sequences < team.world:
        raise UsageError(
            f"a batch of {stream.batch_sequences} sequences is too small for {team.world} ranks; raise batch_tokens"
        )
    opened = Stream(stream)
    facts = _as_json(
        {
            "model": asdict(model),
            "training": {key: value for key, value in asdict(recipe).items() if key not in (*FREE, *OF_STREAM)},
            "recipe": json.loads(stream.to_json()),
            "stream": stream.id,
            "tokenizer": opened.tokenizer,
            "used_ids": opened.used_ids,
            "context": opened.context,
            "frames": recipe.frames,
            "stride": recipe.stride,
            "grid": list(opened.grid),
        }
    )
    if writes and not written:
        record = {"format": FORMAT, "toto": toto.__version__, **wanted}
        record["validation"] = json.loads(validation.to_json()) if validation else None
        with naming(folder):
            write_whole(folder / RECIPE, stream.to_json().encode())
            write_whole(folder / RUN, (json.dumps(record, indent=1) + "\n").encode())
    return Job(folder, model, recipe, stream, validation, facts, asked.stop_at, mirror)


def read_run(folder: Path) -> dict[str, Any]:
    """What run.json says; UserError where it cannot be read."""
    try:
        value = json.loads((folder / RUN).read_text())
    except (OSError, ValueError):
        raise UserError(f"{folder / RUN} cannot be read; is {folder} the folder of a run?") from None
    if (
        not isinstance(value, dict)
        or value.get("format") != FORMAT
        or not all(isinstance(value.get(name), kind) for name, kind in SECTIONS.items())
        or not all(isinstance(source, dict) and SOURCE_KEYS <= source.keys() for source in value["data"])
    ):
        raise UserError(f"{folder / RUN}: not a run of format {FORMAT}, which this version of toto goes on with")
    return value


def find_sources(data: Sequence[str], mixture: str, pipelines: Pipelines) -> list[Source]:
    """The datasets of `--data`, or of a mixture; UserError says how to make those that are not there."""
    sources = name_sources(data, mixture, pipelines)
    missing = [source for source in sources if not open_store(source.uri).exists("dataset.json")]
    if missing:
        raise UserError(_missing(missing, pipelines))
    return sources


def name_sources(data: Sequence[str], mixture: str, pipelines: Pipelines) -> list[Source]:
    """The datasets of `--data`, or of a mixture, whether they are there or not."""
    given: list[tuple[str, Weight]] = [_weighted(text) for text in data]
    if not all(name for name, _ in given):
        raise UsageError("--data is empty; give it a dataset of pipelines.yaml, or a folder that holds dataset.json")
    if not given:
        chosen = pipelines.mixture(mixture)
        given = [(name, chosen.weights.get(name, 0)) for name in chosen.datasets]
    return [
        Source(name, pipelines.shards(name), weight)
        if name in pipelines.datasets
        else Source(_name_of(name), name, weight)
        for name, weight in given
    ]


def later_of(data: Sequence[str], mixture: str, pipelines: Pipelines) -> list[Later]:
    """The phases of a mixture after its first; none of `--data`."""
    phases = () if data else pipelines.mixture(mixture).later
    return [Later(phase.start, phase.unit, phase.weights) for phase in phases]


def _name_of(uri: str) -> str:
    """`k600/dct-128` of `s3://bucket/k600/dct-128`: the last two parts; `:` is for the kinds of a dataset."""
    return "/".join(uri.rstrip("/").split("/")[-2:]).replace(":", "-")


def _missing(missing: list[Source], pipelines: Pipelines) -> str:
    unknown = [source.uri for source in missing if source.name not in pipelines.datasets]
    if unknown:
        near = get_close_matches(unknown[0], pipelines.datasets, n=1)
        names = f"did you mean {near[0]!r}?" if near else f"datasets: {', '.join(pipelines.datasets)}"
        return f"--data {unknown[0]}: neither a dataset of pipelines.yaml nor a place that holds dataset.json\n{names}"
    where = ", ".join(f"{source.name} ({source.uri})" for source in missing)
    made = "; ".join(f"toto-tokenize run {source.name}" for source in missing)
    return f"no shards of {where}\nmake them: {made}; or train on other ones: --data NAME or --data FOLDER"


def _weighted(text: str) -> tuple[str, Weight]:
    name, equals, weight = text.rpartition("=")
    if equals and weight.isdigit():
        return name, int(weight)
    return text, 1


def make_stream(
    sources: Sequence[Source], recipe: RecipeConfig, split: str | None, later: Sequence[Later] = ()
) -> Recipe:
    """The stream of these datasets as they are sealed now; of the training split where none is named."""
    return make_recipe(
        [(source.name, source.uri, source.weight, split) for source in sources],
        frames=recipe.frames,
        stride=recipe.stride,
        seed=recipe.seed,
        batch_sequences=partial(batch_sequences, recipe.batch_tokens),
        hop=recipe.hop,
        kinds=KINDS[recipe.kinds],
        later=later,
    )


def _validation(stream: Recipe, sources: Sequence[Source], recipe: RecipeConfig) -> Recipe | None:
    """The stream of the held-out splits of those that have one and are not trained on it; None where none has.

    A held-out split that is too short for a single window is no reason not to train. Datasets count by the weights of
    the start; those that join later count once.
    """
    trained = {(part.name.split(":")[0], part.split) for part in stream.parts}
    able = []
    for source in sources:
        if HELD_OUT in Dataset(source.uri).splits and (source.name, HELD_OUT) not in trained:
            judged = replace(source, weight=total(source.weight) or 1)
            try:
                make_stream([judged], recipe, HELD_OUT)
            except UserError:
                continue
            able.append(judged)
    return make_stream(able, recipe, HELD_OUT) if able else None


def read_stream(folder: Path) -> Recipe:
    """The stream of a run; UserError where its recipe.json is missing or damaged."""
    try:
        text = (folder / RECIPE).read_text()
    except OSError:
        raise UserError(
            f"no whole run at {folder}: {RECIPE} is missing, which says what a run reads; give the folder of a run"
        ) from None
    return Recipe.from_json(text, str(folder / RECIPE))


def _moved(stream: Recipe, sources: Sequence[Source]) -> Recipe:
    """The same stream, read where the datasets lie now; their ids are checked when they are opened."""
    places = {source.name: open_store(source.uri).uri for source in sources}
    parts = (replace(part, uri=places.get(part.name.split(":")[0], part.uri)) for part in stream.parts)
    return replace(stream, parts=tuple(parts))


def batch_sequences(batch_tokens: int, context: int) -> int:
    """Sequences of a step; UsageError when a step is smaller than one sequence."""
    if batch_tokens < context:
        raise UsageError(
            f"recipe: batch_tokens is {batch_tokens:,}, but one sequence has {context:,} tokens; "
            "raise it, or lower frames"
        )
    return batch_tokens // context


def _same(written: dict[str, Any], wanted: dict[str, Any], folder: str) -> None:
    for section in ("model", "recipe"):
        told = as_now(written[section], wanted[section])
        for key, value in wanted[section].items():
            if key not in FREE and told.get(key) != value:
                raise UsageError(
                    f"{folder} holds a run with {section}.{key} {told.get(key)!r}, not {value!r}; "
                    "ask for the same to go on with it, or choose another --out"
                )
    asked, there = ([(one["name"], one["weight"]) for one in run["data"]] for run in (wanted, written))
    if asked != there:
        names = ", ".join(f"{source['uri']}={source['weight']}" for source in written["data"])
        raise UsageError(f"{folder} holds a run on {names}; give the same --data to go on, or choose another --out")
    if wanted["phases"] != written.get("phases", []):
        raise UsageError(
            f"{folder} holds a run whose mixture {written['recipe']['mixture']} had other phases; "
            "ask for the same to go on with it, or choose another --out"
        )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))
