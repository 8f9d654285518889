"""Prompts -> codes of whole clips, in batches, and how many of them are true.

    Prompts ─ batches ─▶ Rollout ─▶ codes [n, frames, h, w], losses ─▶ of each frame: accuracy, loss, what copying has

Every sample has uniform numbers of its own (seed, number of the sample), so it comes out of any batch and any number of
samples the same. On a CPU in fp32 that holds to the last bit, by packed matrices (packed.py) or by products that are
filled up (rows.py): the last bits of torch's own depend on how many rows they have. On a GPU, and in bf16, near-ties
may fall otherwise.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.ids import IMAGE_START, VIDEO_START
from toto.shards.recipe import Kind
from toto.train.generation.prompts import Prompts
from toto.train.generation.rollout import NotFinite, Regime, Rollout
from toto.train.generation.sampling import Sampling, uniforms
from toto.train.hardware import memory_for
from toto.train.load import Loaded
from toto.train.models.packed import packed


@dataclass(frozen=True)
class Generation:
    """What is to be made."""

    kind: Kind
    frames: int  # of a clip, the prompt among them
    regime: Regime
    sampling: Sampling
    seed: int = 0
    batch: int = 16  # clips at once

    def check(self, prompt: int) -> None:
        """UsageError where a prompt of so many frames leaves nothing to make."""
        if prompt >= self.frames:
            raise UsageError(f"{counted(self.frames, 'frame')}, and the prompt has {prompt}: nothing is left to make")


class Made(NamedTuple):
    """Clips."""

    codes: np.ndarray  # int64 [n, frames, h, w]: the prompts, then what the model made
    losses: np.ndarray | None  # float64 [frames], nats a true code, NaN in the prompt; None where no truth is known


def generate(
    loaded: Loaded, known: Prompts, asked: Generation, made: Callable[[int], None] = lambda clips: None
) -> np.ndarray:
    """The codes of `make`."""
    return make(loaded, known, asked, made).codes


def make(loaded: Loaded, known: Prompts, asked: Generation, made: Callable[[int], None] = lambda clips: None) -> Made:
    """The prompts, then what the model makes; `made(clips)` follows each new frame.

    UsageError where there is nothing to make, or no truth for a regime that reads it; UserError for a model whose
    logits are not finite, and where memory does not hold what is to be made.
    """
    asked.check(known.prompt)
    if asked.regime != "free" and not known.has_truth:
        lacking = f"not every prompt has {counted(asked.frames, 'frame')}"
        raise UsageError(f"regime {asked.regime} reads true frames: {lacking}; lower --frames, or give longer prompts")
    cells = loaded.grid[0] * loaded.grid[1]
    start = VIDEO_START if asked.kind == "video" else IMAGE_START
    rollout = Rollout(loaded.model, start, loaded.context // cells, asked.regime, asked.sampling)
    device = loaded.model.table.weight.device
    codes, losses = [], []
    many = f"{counted(min(asked.batch, len(known)), 'clip')} at once of {counted(asked.frames * cells, 'code')}"
    with _told(loaded.place, many), packed(loaded.model):
        for first in range(0, len(known), asked.batch):
            samples = range(first, min(first + asked.batch, len(known)))
            given = torch.from_numpy(known.codes[first : samples.stop].reshape(len(samples), -1, cells))
            drawn = uniforms(asked.seed, samples, asked.frames, cells)
            found = rollout(given.to(device), known.prompt, drawn.to(device), _reporter(made, len(samples)))
            codes.append(found.codes.cpu().numpy())
            if found.losses is not None:
                losses.append(found.losses.double().mean(2).cpu().numpy())
    return Made(np.concatenate(codes).reshape(len(known), asked.frames, *loaded.grid), _mean(losses, known.prompt))


@contextmanager
def _told(place: str, many: str) -> Iterator[None]:
    """What a model cannot do, as UserError."""
    try:
        with memory_for(f"{many} by {place}", "lower --batch or --frames"):
            yield
    except NotFinite as error:
        raise UserError(f"{place}: {error}: its weights are too large, or damaged; take another checkpoint") from None


def by_frame(made: Made, known: Prompts, asked: Generation) -> dict[str, list[float | None] | None]:
    """`accuracy`, `loss` (nats a code) and `copy_accuracy` of each frame; None where they are not known."""
    return {
        "accuracy_by_frame": accuracy_by_frame(made.codes, known),
        "loss_by_frame": None if made.losses is None else [_or_none(loss) for loss in made.losses],
        "copy_accuracy_by_frame": copy_accuracy_by_frame(known, asked),
    }


def accuracy_by_frame(codes: np.ndarray, known: Prompts) -> list[float | None] | None:
    """Share of codes that are the true ones, of each frame; None for frames of the prompt, and without truth."""
    if not known.has_truth:
        return None
    hits = (codes == known.codes).mean((0, 2, 3))
    return [None if frame < known.prompt else float(hit) for frame, hit in enumerate(hits)]


def copy_accuracy_by_frame(known: Prompts, asked: Generation) -> list[float | None] | None:
    """The same for copying: the frame before where the model reads true frames, else the prompt's last one."""
    if not known.has_truth or asked.kind == "image":
        return None
    copied: list[float | None] = [None] * asked.frames
    for frame in range(max(known.prompt, 1), asked.frames):
        origin = known.prompt - 1 if asked.regime == "free" else frame - 1
        if origin >= 0:
            copied[frame] = float((known.codes[:, origin] == known.codes[:, frame]).mean())
    return copied


def _mean(losses: list[np.ndarray], prompt: int) -> np.ndarray | None:
    """Over all clips, of each frame."""
    if not losses:
        return None
    mean: np.ndarray = np.concatenate(losses).mean(0)
    mean[:prompt] = np.nan
    return mean


def _or_none(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)


def _reporter(made: Callable[[int], None], clips: int) -> Callable[[], None]:
    return lambda: made(clips)
