"""A checkpoint -> its model, ready for use, and what has to be known about it; nothing but the folder is needed."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toto.config import ModelConfig
from toto.errors import UserError
from toto.shards.recipe import Recipe
from toto.train import checkpoint
from toto.train.checkpoint.fetch import copied, is_remote
from toto.train.checkpoint.model_facts import check_numbers, model_config
from toto.train.cost import Cost
from toto.train.models import LanguageModel, make_model


@dataclass(frozen=True)
class Loaded:
    """A model as it was after `step` steps."""

    model: LanguageModel  # fp32, in eval mode, without gradients
    config: ModelConfig
    used_ids: int  # codes and the four special ids
    tokenizer: dict[str, Any]  # as in the dataset.json of the shards that it was trained on
    context: int  # positions: frames × grid of one sequence
    frames: int
    stride: int | None  # source frames between two frames of a window; None: as stored
    grid: tuple[int, int]  # codes of a frame, rows and columns
    step: int
    path: Path  # the checkpoint's folder; of one under a URI the folder here beside which results are put
    id: str  # hash of the checkpoint: of its weights, and of all that is said here
    recipe: dict[str, Any]  # the stream of sequences (recipe.json)
    uri: str | None = None  # where it was read from, when that is no folder of this machine

    @property
    def place(self) -> str:
        """Where it was read from: its folder or URI."""
        return self.uri or str(self.path)


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Loaded:
    """The model of a checkpoint, or of the newest checkpoint of a run; a folder, or an fsspec URI.

    Every file is checked against its hash and no code is unpickled. UserError for what is missing, damaged, or of
    another format.
    """
    if is_remote(str(path)):
        with copied(str(path)) as (folder, uri):
            try:
                return replace(_loaded(folder, device), path=results_of(uri, parts=2), uri=uri)
            except UserError as error:
                raise UserError(str(error).replace(str(folder), uri)) from None
    return _loaded(checkpoint.resolve(Path(str(path).removeprefix("file://"))), device)


def _loaded(folder: Path, device: torch.device | str) -> Loaded:
    facts = checkpoint.read_facts(folder)
    try:
        return _read(folder, facts, device)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder}/{checkpoint.FACTS} does not describe a model of toto ({problem})") from None


def results_of(place: str, parts: int = 1) -> Path:
    """Where results about a run go by default: its folder; of a URI `${TOTO_RUNS:-runs}` and its last parts, as RUN or
    RUN/STEP."""
    if not is_remote(place):
        return Path(place.removeprefix("file://"))
    return Path(os.environ.get("TOTO_RUNS") or "runs", *place.rstrip("/").split("://", 1)[1].split("/")[-parts:])


def _read(folder: Path, facts: dict[str, Any], device: torch.device | str) -> Loaded:
    place = f"{folder}/{checkpoint.FACTS}"
    config = model_config(facts["model"], place)
    check_numbers(facts, place)
    Recipe.from_json(json.dumps(facts["recipe"]), f"{place}, recipe")
    _check_size(config, facts, folder)
    model = make_model(config, facts["used_ids"], seed=None)
    checkpoint.load(folder, checkpoint.tensors_of(model))
    model.requires_grad_(False)
    return described(model.to(device).eval(), config, facts, folder, facts["step"], checkpoint.identity(facts))


def described(
    model: LanguageModel, config: ModelConfig, facts: dict[str, Any], path: Path, step: int, checkpoint_id: str = ""
) -> Loaded:
    """A model with what a run's facts say of it."""
    return Loaded(
        model=model,
        config=config,
        used_ids=facts["used_ids"],
        tokenizer=facts["tokenizer"],
        context=facts["context"],
        frames=facts["frames"],
        stride=facts["stride"],
        grid=(facts["grid"][0], facts["grid"][1]),
        step=step,
        path=path,
        id=checkpoint_id,
        recipe=facts["recipe"],
    )


def _check_size(config: ModelConfig, facts: dict[str, Any], folder: Path) -> None:
    """UserError where the files cannot hold the weights of the model: a stranger may name one that no memory holds."""
    wanted = 4 * Cost(config, facts["used_ids"], facts["context"]).parameters
    there = sum(path.stat().st_size for path in (folder / checkpoint.STATE).iterdir())
    if there < wanted:
        raise UserError(f"{folder}: its files have {there:,} bytes, the weights of the model that it names {wanted:,}")


def check_fits(loaded: Loaded, tokenizer: dict[str, Any], grid: tuple[int, int], place: str) -> None:
    """UserError when a model cannot read shards: other ids mean nothing to it, in another grid cells lie elsewhere."""
    if tokenizer["id"] != loaded.tokenizer["id"]:
        raise UserError(
            f"{place} was made with {tokenizer['name']} (id {tokenizer['id'][:12]}), but {loaded.place} was trained on "
            f"{loaded.tokenizer['name']} (id {loaded.tokenizer['id'][:12]}); take shards of that tokenizer"
        )
    if grid != loaded.grid:
        raise UserError(
            f"{place} has frames of {grid[0]}×{grid[1]} codes, but {loaded.place} was trained on "
            f"{loaded.grid[0]}×{loaded.grid[1]}; take shards of that resolution"
        )
