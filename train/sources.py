"""What is trained on: `--data`, or a recipe's mixture -> datasets -> their stream, and that of held-out sequences.

    names, URIs, weights ─▶ Sources ─as they are sealed now─▶ Recipe of the split `train`, Recipe of the split `val`

Datasets that are not there are refused with the lines that make them, or with the tokenizers whose shards are there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial

from toto.config import Pipelines, RecipeConfig
from toto.errors import UsageError, UserError
from toto.shards.dataset import Dataset
from toto.shards.recipe import Kind, Recipe, make_recipe
from toto.shards.store import open_store
from toto.shards.streaming.shares import Later, Weight, total

HELD_OUT = "val"
KINDS: dict[str, tuple[Kind, ...]] = {"all": ("video", "image"), "video": ("video",), "image": ("image",)}


@dataclass(frozen=True)
class Source:
    """A dataset to train on."""

    name: str
    uri: str
    weight: Weight  # from the start; `later_of` says what changes


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
        if "=" in unknown[0]:
            names = "a weight is a whole number, as in --data demo=3"
        return f"--data {unknown[0]}: neither a dataset of pipelines.yaml nor a place that holds dataset.json\n{names}"
    where = ", ".join(f"{source.name} ({source.uri})" for source in missing)
    others = [
        f"--set datasets.{source.name}.tokenizer={name}"
        for source in missing
        for name in pipelines.tokenizers
        if open_store(pipelines.shards(source.name, name)).exists("dataset.json")
    ]
    there = f"other tokenizers' are there: {', '.join(others)}; or " if others else ""
    made = "; ".join(f"toto-tokenize run {source.name}" for source in missing)
    return f"no shards of {where}\n{there}make them: {made}; or train on other ones: --data NAME or --data FOLDER"


def _weighted(text: str) -> tuple[str, Weight]:
    name, equals, weight = text.rpartition("=")
    if equals and weight.isdecimal():
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


def held_out_stream(stream: Recipe, sources: Sequence[Source], recipe: RecipeConfig) -> Recipe | None:
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


def moved(stream: Recipe, sources: Sequence[Source]) -> Recipe:
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
