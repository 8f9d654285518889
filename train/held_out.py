"""Sequences that a model was not trained on: another split of its own datasets, or another dataset."""

import json
from dataclasses import replace
from pathlib import Path

from toto.errors import UserError
from toto.shards.mixture import Phase
from toto.shards.recipe import Kind, Recipe, make_recipe
from toto.shards.stream import Stream
from toto.train.load import Loaded, same_tokenizer


def held_out(loaded: Loaded, data: str | None, split: str | None, kind: Kind) -> Stream:
    """The sequences of one split and kind: of the model's own datasets at their snapshots, or of another's newest.

    `split` None is the one that was trained on, or would be. UserError where there are none, or where they were made
    with another tokenizer.
    """
    own = Recipe.from_json(json.dumps(loaded.recipe), str(loaded.path))
    if data is None:
        kept = tuple(replace(part, split=split or part.split) for part in own.parts if part.kind == kind)
        if not kept:
            raise UserError(f"{loaded.path} was trained on no {kind} sequences; choose another --kind, or give --data")
        recipe = replace(own, parts=kept, phases=(Phase(0, (1,) * len(kept)),))
    else:
        sources = [(Path(data).name, data, 1, split)]
        recipe = make_recipe(sources, own.frames, own.stride, own.seed, own.batch_sequences, kinds=(kind,))
    stream = Stream(recipe)
    same_tokenizer(loaded, stream.tokenizer, ", ".join(part.uri for part in recipe.parts))
    return stream
