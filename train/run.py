"""A run's folder: everything resolved once, written down, and read again by whoever goes on with it.

    size + recipe + datasets ─prepare─▶ runs/<name>/run.json      what was asked for, with every default
                                                    recipe.json   the stream of sequences, its snapshots pinned
                             ◀──────── Job ────────

A folder that holds a run already is gone on with; asking for something else there is refused.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import toto
from toto.config import ModelConfig, Pipelines, RecipeConfig
from toto.errors import UsageError, UserError, naming
from toto.files import write_whole
from toto.plain import counted
from toto.shards.recipe import RECIPE, Recipe
from toto.shards.snapshot import DATASET, NoSuchSnapshot
from toto.shards.stream import Stream
from toto.train.changes import FREE, WHY, as_now
from toto.train.checkpoint import found
from toto.train.checkpoint.fetch import is_remote
from toto.train.checkpoint.mirror import Mirror
from toto.train.hardware import faster_precision
from toto.train.loop import Job
from toto.train.parallel import Team
from toto.train.sources import find_sources, held_out_stream, later_of, make_stream, moved
from toto.train.watch.metrics import FILE as METRICS

RUN = "run.json"
KEPT = (RUN, RECIPE, METRICS)  # what a run needs to go on, beside a checkpoint
FORMAT = 1
SECTIONS = {"model": dict, "recipe": dict, "data": list, "validation": dict | None}  # of run.json
SOURCE_KEYS = {"name", "uri", "weight"}
OF_STREAM = ("hop",)  # told by the stream's id already


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

    UsageError where it was asked for by nothing, as an unset variable of a shell does, and for a dataset's folder.
    """
    if mirror:
        return mirror.folder
    if asked.out == "":
        raise UsageError("--out is empty; give it a folder or a URI")
    folder = Path((asked.out or f"{os.environ.get('TOTO_RUNS') or 'runs'}/{asked.size}").removeprefix("file://"))
    if (folder / DATASET).exists():
        raise UsageError(f"--out {folder} holds a token dataset; give the run a folder of its own")
    return folder


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
        stream = moved(read_stream(folder), sources)
        validation = written["validation"] and moved(
            Recipe.from_json(json.dumps(written["validation"]), str(folder / RUN)), sources
        )
    else:
        stream = make_stream(sources, recipe, None, later)
        validation = held_out_stream(stream, sources, recipe)
    if stream.batch_sequences < team.world:
        raise UsageError(
            f"a batch of {counted(stream.batch_sequences, 'sequence')} is too small for {team.world} ranks; "
            "raise batch_tokens"
        )
    try:
        facts = _facts(model, recipe, stream)
    except NoSuchSnapshot as error:
        raise UserError(
            f"{error}, where {mirror.store.uri if mirror else folder} was trained on that one; "
            "give it back, say by --data where it lies, or choose another --out"
        ) from None
    if writes and not written:
        record = {"format": FORMAT, "toto": toto.__version__, **wanted}
        record["validation"] = json.loads(validation.to_json()) if validation else None
        with naming(folder):
            write_whole(folder / RECIPE, stream.to_json().encode())
            write_whole(folder / RUN, (json.dumps(record, indent=1) + "\n").encode())
    return Job(folder, model, recipe, stream, validation, facts, asked.stop_at, mirror)


def _facts(model: ModelConfig, recipe: RecipeConfig, stream: Recipe) -> dict[str, Any]:
    """What every checkpoint says of its run, as JSON gives it back."""
    opened = Stream(stream)
    facts = {
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
    found: dict[str, Any] = json.loads(json.dumps(facts))
    return found


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


def read_stream(folder: Path) -> Recipe:
    """The stream of a run; UserError where its recipe.json is missing or damaged."""
    try:
        text = (folder / RECIPE).read_text()
    except OSError:
        raise UserError(
            f"no whole run at {folder}: {RECIPE} is missing, which says what a run reads; give the folder of a run"
        ) from None
    return Recipe.from_json(text, str(folder / RECIPE))


def _same(written: dict[str, Any], wanted: dict[str, Any], folder: str) -> None:
    for section in ("model", "recipe"):
        told = as_now(written[section], wanted[section])
        for key, value in wanted[section].items():
            if key not in FREE and told.get(key) != value:
                why = f" ({WHY[key]})" if key in WHY else ""
                raise UsageError(
                    f"{folder} holds a run with {section}.{key} {told.get(key)!r}, not {value!r}{why}; "
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
