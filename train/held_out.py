"""Sequences that a model was not trained on: another split of its own datasets, or another dataset."""

import json
from dataclasses import replace
from pathlib import Path

from toto.config import load
from toto.config_rules import NAME
from toto.errors import UserError
from toto.shards.dataset import Dataset
from toto.shards.recipe import Kind, Recipe, make_recipe
from toto.shards.snapshot import DATASET, NoSuchSnapshot
from toto.shards.stream import Stream
from toto.shards.streaming.mixture import MOST_WEIGHT, Phase
from toto.train.load import Loaded, check_fits


def held_out(loaded: Loaded, data: str | None, split: str | None, kind: Kind) -> Stream:
    """The sequences of one split and kind: of the model's own datasets at their snapshots, or of another's newest.

    `data` is a key of `datasets:`, whose shards lie where toto-tokenize puts them, or a folder or URI. `split` None is
    the one that was trained on, or would be. UserError where there are none, or where they were made with another
    tokenizer.
    """
    try:
        return _held_out(loaded, data, split, kind)
    except NoSuchSnapshot as error:
        raise UserError(
            f"{error}, where {loaded.place} was trained on that one; say where a dataset of this tokenizer lies: --data"
        ) from None


def _uri(data: str) -> str:
    """Where a dataset lies by its key; what is no key, or a dataset's folder, as it is."""
    if not NAME.fullmatch(data) or (Path(data) / DATASET).exists():
        return data
    pipelines = load()
    return pipelines.shards(data) if data in pipelines.datasets else data


def _held_out(loaded: Loaded, data: str | None, split: str | None, kind: Kind) -> Stream:
    own = Recipe.from_json(json.dumps(loaded.recipe), loaded.place)
    if data is None:
        recipe = _own(loaded, own, split, kind)
    else:
        sources = [(Path(data).name, _uri(data), 1, split)]
        recipe = make_recipe(sources, own.frames, own.stride, own.seed, own.batch_sequences, kinds=(kind,))
    stream = Stream(recipe)
    check_fits(loaded, stream.tokenizer, stream.grid, ", ".join(part.uri for part in recipe.parts))
    return Stream(replace(recipe, phases=(Phase(0, _weights(stream)),)))


def _own(loaded: Loaded, own: Recipe, split: str | None, kind: Kind) -> Recipe:
    """Those of the model's own datasets that have the kind, and the split."""
    alike = [part for part in own.parts if part.kind == kind]
    if not alike:
        raise UserError(f"{loaded.place} was trained on no {kind} sequences; choose another --kind, or give --data")
    able = [part for part in alike if not split or split in Dataset(part.uri, part.dataset_id).splits]
    if not able:
        names = ", ".join(part.name for part in alike)
        raise UserError(f"{names}: no split {split!r}, on which {loaded.place} could be judged; choose another --split")
    parts = tuple(replace(part, split=split or part.split) for part in able)
    return replace(own, parts=parts, phases=(Phase(0, (1,) * len(parts)),))


def _weights(stream: Stream) -> tuple[int, ...]:
    """In proportion to the sequences of each part, so that one epoch of all is one of each; exact up to 10,000."""
    counts = list(stream.sequences_per_epoch().values())
    scale = max(1.0, sum(counts) / (MOST_WEIGHT - len(counts)))
    return tuple(max(1, int(count / scale)) for count in counts)
