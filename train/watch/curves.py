"""Losses of runs over steps, tokens and compute (Figs. 2 and 14), read back from what they wrote while they went on.

RUN/metrics.jsonl ─one line at a time─▶ losses of steps, held-out losses
RUN/recipe.json, checkpoint.json ─▶ tokens of a step, FLOPs of a token      ─▶ Curve ─▶ curves.json, curves.png
"""

from array import array
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.shards.recipe import Recipe
from toto.shards.stream import Stream
from toto.train import checkpoint
from toto.train.checkpoint.fetch import is_remote
from toto.train.checkpoint.model_facts import model_config
from toto.train.cost import Cost
from toto.train.run import read_run, read_stream
from toto.train.watch.metrics import metric_lines
from toto.train.watch.remote_run import log_here

MOST_NATS = 1e6  # of a token; what is more, or is no number, cannot be drawn
POINTS = 400  # of a training curve: means over steps, few at the beginning and ever more
LAST = 0.01  # of the steps, over which the last training loss is the mean


@dataclass(frozen=True)
class Curve:
    """What one run logged; losses in nats a token."""

    name: str
    run: str  # its folder or URI
    model: str  # its key in pipelines.yaml
    cost: Cost
    tokens_per_step: int  # visual tokens
    steps: np.ndarray  # int64 [n]
    loss: np.ndarray  # float64 [n]: of each step's batch; without the steps that were skipped
    held_out_steps: np.ndarray  # int64 [m]
    held_out: np.ndarray  # float64 [m]

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps float64 [k] and training losses [k], k at most POINTS: means over stretches that grow with the step."""
        edges = np.unique(np.geomspace(1, len(self.steps) + 1, POINTS + 1).round().astype(np.int64)) - 1
        counts = np.diff(edges)
        steps = np.add.reduceat(self.steps.astype(np.float64), edges[:-1]) / counts
        return steps, np.add.reduceat(self.loss, edges[:-1]) / counts

    def last_loss(self) -> float:
        """The training loss at the end: the mean over the last hundredth of the steps."""
        return float(self.loss[-max(1, round(LAST * len(self.loss))) :].mean())

    def tokens(self, steps: np.ndarray) -> np.ndarray:
        """Visual tokens after so many steps."""
        return np.asarray(steps * float(self.tokens_per_step))

    def flops(self, steps: np.ndarray) -> np.ndarray:
        """FLOPs of training after so many steps, causal attention."""
        return np.asarray(self.tokens(steps) * float(self.cost.training_flops_per_token))

    def as_json(self) -> dict[str, Any]:
        """What curves.json says of a run."""
        steps, losses = self.means()
        return {
            "name": self.name,
            "run": self.run,
            "model": self.model,
            "parameters": self.cost.parameters,
            "tokens_per_step": self.tokens_per_step,
            "flops_per_token": self.cost.training_flops_per_token,
            "flops_per_token_palm": self.cost.palm_training_flops_per_token,
            "steps": int(self.steps[-1]),
            "last_loss": self.last_loss(),
            "last_held_out": float(self.held_out[-1]) if len(self.held_out) else None,
            "training": {"step": steps.tolist(), "loss": losses.tolist()},
            "held_out": {"step": self.held_out_steps.tolist(), "loss": self.held_out.tolist()},
        }


def read_curve(run: str | Path, name: str) -> Curve:
    """The curve of a run, which may be going on, in a folder or under a URI; UserError where it is none, or has not
    logged a step."""
    place = str(run)
    if not is_remote(place):
        return _read_curve(Path(place.removeprefix("file://")), name)
    with log_here(place) as folder:
        try:
            return replace(_read_curve(folder, name), run=place)
        except UserError as error:
            raise UserError(str(error).replace(str(folder), place)) from None


def _read_curve(run: Path, name: str) -> Curve:
    recipe = read_stream(run)
    steps, losses = array("q"), array("d")
    held_out_steps, held_out = array("q"), array("d")
    for line in metric_lines(run):
        if _drawable(line.get("loss")) and not line.get("skipped"):
            steps.append(line["step"])
            losses.append(line["loss"])
        elif _drawable(line.get("validation_loss")):
            held_out_steps.append(line["step"])
            held_out.append(line["validation_loss"])
    if not steps:
        raise UserError(f"{run}: no step is logged yet; try again when `toto-train pretrain` has shown one")
    cost = _cost_of(run, recipe)
    return Curve(
        name,
        str(run),
        cost.config.name,
        cost,
        recipe.batch_sequences * recipe.context,
        np.array(steps),
        np.array(losses),
        np.array(held_out_steps),
        np.array(held_out),
    )


def named(runs: list[str]) -> list[tuple[str, str]]:
    """Each run with the name of its folder, or the whole path where two would be called the same."""
    names = [Path(run).name if is_remote(run) else Path(run.removeprefix("file://")).resolve().name for run in runs]
    return [(run, name if names.count(name) == 1 else run) for run, name in zip(runs, names, strict=True)]


def _drawable(loss: Any) -> bool:
    return isinstance(loss, int | float) and abs(loss) < MOST_NATS


def _cost_of(run: Path, recipe: Recipe) -> Cost:
    """What a token costs: by the newest checkpoint, else, as its shards say how many codes there are, by them."""
    there = checkpoint.found(run)
    place = there[-1] if there else run
    facts = checkpoint.read_facts(place) if there else {**read_run(run), "used_ids": Stream(recipe).used_ids}
    try:
        cost = Cost(model_config(facts["model"], str(place)), facts["used_ids"], recipe.context)
        float(cost.palm_training_flops_per_token)  # which takes every number of the model
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{place} does not describe a model of toto ({type(error).__name__}: {error})") from None
    return cost
