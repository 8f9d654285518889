"""What checkpoint.json says of its model, held against the rules of pipelines.yaml before any memory is asked for.

A stranger may have written it, with a hash of its own: numbers that no run has end in one line.

    model                          the rules of `models:`, key by key, and those among keys
    frames, stride, grid, context  those of `recipes:`; context = frames × rows × columns
    tokenizer, used_ids            its codes and the four special ids
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toto.config import ModelConfig, RecipeConfig, check_model
from toto.config_rules import NAME, Rule, rules
from toto.errors import UsageError, UserError
from toto.shards.ids import CODE_OFFSET
from toto.shards.untrusted.shape import SIZE, misshapen

MOST_CONTEXT = 1 << 24  # codes of a sequence: 4,096 times the paper's
MOST_PATCH = 4096  # pixels of a code's side, as of foreign codes
SHAPE = {
    "used_ids": SIZE,
    "context": SIZE,
    "frames": SIZE,
    "stride": int | None,
    "grid": [SIZE],
    "tokenizer": {"name": str, "id": str, "vocab_size": SIZE, "patch": SIZE},
}


def model_config(model: Mapping[str, Any], place: str) -> ModelConfig:
    """The shape of a model as a checkpoint or a run at `place` tells it; UserError where toto has no such model."""
    strange = sorted(set(model) - {field.name for field in fields(ModelConfig)})
    if strange:
        raise UserError(f"{place}: a model with {', '.join(strange)[:200]}, which this version of toto does not know")
    name = model.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        _refuse(place, f"name is {_shown(name)}, not the name of a model")
    for key, rule in rules(ModelConfig).items():
        if key in model or rule.required:
            _hold(place, key, model.get(key), rule)
    config = ModelConfig(**model)
    try:
        check_model(config, "model")
    except UsageError as error:
        _refuse(place, str(error))
    return config


def check_numbers(facts: Mapping[str, Any], place: str) -> None:
    """UserError where the numbers beside the model are none that a run has, or do not go together."""
    wrong = misshapen(facts, SHAPE)
    if wrong is not None:
        _refuse(place, f"{wrong} is missing or not what it must be")
    for key in ("frames", "stride"):
        _hold(place, key, facts[key], rules(RecipeConfig)[key])
    grid, frames, context = facts["grid"], facts["frames"], facts["context"]
    if len(grid) != 2 or not all(grid):
        _refuse(place, f"grid is {_shown(grid)}, not rows and columns")
    if context != frames * grid[0] * grid[1] or context > MOST_CONTEXT:
        many = f"{frames:,} × {grid[0]:,} × {grid[1]:,}"
        _refuse(place, f"context is {context:,}; it must be frames × grid, here {many}, and at most {MOST_CONTEXT:,}")
    codes, patch = facts["tokenizer"]["vocab_size"], facts["tokenizer"]["patch"]
    if not codes or facts["used_ids"] != codes + CODE_OFFSET:
        _refuse(place, f"used_ids is {facts['used_ids']:,}; the tokenizer's codes and {CODE_OFFSET} are {codes:,} + 4")
    if not 1 <= patch <= MOST_PATCH:
        _refuse(place, f"tokenizer.patch is {patch:,}, not a whole number from 1 to {MOST_PATCH:,}")


def _hold(place: str, key: str, value: Any, rule: Rule) -> None:
    if not (rule.accepts(value) or (value is None and rule.optional)):
        _refuse(place, f"{key} is {_shown(value)}, not {rule.allowed}")


def _refuse(place: str, problem: str) -> None:
    raise UserError(f"{place} does not describe a model of toto: {problem}; take another checkpoint")


def _shown(value: Any) -> str:
    """A value of whatever size, on one line."""
    if isinstance(value, dict | list):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)}"
    return "missing" if value is None else repr(value)[:40]
