"""Prompts -> codes of whole clips, in batches, and how many of them are true.

    Prompts ─ batches ─▶ Rollout ─▶ codes [n, frames, h, w] ─▶ accuracy of each frame, beside copying the frame before

Every sample has uniform numbers of its own (seed, number of the sample). On a CPU clips are made eight at once whatever
`batch` says, the last eight filled up: the last bits of a matrix product depend on how many rows it has (measured), so
the same clip comes out of any batch and any number of samples. On a GPU near-ties may fall otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from toto.errors import UsageError
from toto.shards.ids import IMAGE_START, VIDEO_START
from toto.shards.recipe import Kind
from toto.train.load import Loaded
from toto.train.prompts import Prompts
from toto.train.rollout import Regime, Rollout
from toto.train.sampling import Sampling, uniforms

CPU_ROWS = 8


@dataclass(frozen=True)
class Generation:
    """What is to be made."""

    kind: Kind
    frames: int  # of a clip, the prompt among them
    regime: Regime
    sampling: Sampling
    seed: int = 0
    batch: int = 16  # clips at once on a GPU

    def check(self, prompt: int) -> None:
        """UsageError where a prompt of so many frames leaves nothing to make."""
        if prompt >= self.frames:
            raise UsageError(f"{self.frames} frames, and the prompt has {prompt}: nothing is left to make")


def generate(
    loaded: Loaded, known: Prompts, asked: Generation, made: Callable[[int], None] = lambda clips: None
) -> np.ndarray:
    """Codes int64 [n, frames, h, w]: the prompts, then what the model makes; `made(clips)` follows each new frame.

    UsageError where there is nothing to make, or no truth for a regime that reads it.
    """
    asked.check(known.prompt)
    if asked.regime != "free" and not known.has_truth:
        raise UsageError(f"regime {asked.regime} reads true frames: prompts of a dataset are needed")
    cells = loaded.grid[0] * loaded.grid[1]
    start = VIDEO_START if asked.kind == "video" else IMAGE_START
    rollout = Rollout(loaded.model, start, loaded.context // cells, asked.regime, asked.sampling)
    device = loaded.model.table.weight.device
    batch = asked.batch if device.type == "cuda" else CPU_ROWS
    clips = []
    for first in range(0, len(known), batch):
        samples = range(first, min(first + batch, len(known)))
        rows = torch.arange(batch if device.type == "cpu" else len(samples)).clamp(max=len(samples) - 1)
        codes = torch.from_numpy(known.codes[first : samples.stop].reshape(len(samples), -1, cells))
        drawn = uniforms(asked.seed, samples, asked.frames, cells)
        report = _reporter(made, len(samples))
        found = rollout(codes[rows].to(device), known.prompt, drawn[rows].to(device), report)
        clips.append(found[: len(samples)].cpu().numpy())
    return np.concatenate(clips).reshape(len(known), asked.frames, *loaded.grid)


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


def _reporter(made: Callable[[int], None], clips: int) -> Callable[[], None]:
    return lambda: made(clips)
