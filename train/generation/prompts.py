"""What a generation starts from: the first frames of held-out windows or image sequences, and what truly came after.

dataset ─Stream of windows of all frames─▶ sequences 0 … n-1 ─▶ codes, of which the first `prompt` frames are the prompt

Where no run is as long as what is to be made, windows of the prompt alone are taken: there is no truth then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.shards.ids import to_codes
from toto.shards.recipe import Kind
from toto.shards.row import Window
from toto.shards.stream import Stream
from toto.shards.streaming.candidate import Candidate, sequences_of
from toto.shards.streaming.mixture import Phase
from toto.train.held_out import held_out
from toto.train.load import Loaded

DEFAULT_FPS = 8.0  # of pictures whose frames have no times


@dataclass(frozen=True)
class Prompts:
    """Known frames of n sequences, and where they come from."""

    codes: np.ndarray  # int64 [n, frames, h, w]; frames = 0 where nothing is known
    prompt: int  # the first so many frames are read, never made
    has_truth: bool  # `codes` holds every frame that is to be made
    clips: Sequence[Sequence[Window]] = ()  # of each sequence: one window, or one image a frame
    dataset_ids: tuple[str, ...] = ()
    names: Sequence[Sequence[str]] = ()  # of each sequence, what the user calls its sources; else their keys

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Of each sequence, source keys and decoded frame numbers."""
        return [
            {"sources": list(named), "frames": [int(i) for c in clips for i in c.frame_index]}
            for named, clips in zip(self.named, self.clips, strict=True)
        ]

    @property
    def named(self) -> Sequence[Sequence[str]]:
        """Of each sequence, its sources."""
        return self.names or [[clip.source for clip in clips] for clips in self.clips]

    @property
    def fps(self) -> float:
        """Frames a second of the first video clip, in its own time."""
        times = self.clips[0][0].pts_us if self.clips else None
        steps = np.diff(times) if times is not None else np.empty(0)
        return float(1e6 / np.median(steps)) if len(steps) and np.median(steps) > 0 else DEFAULT_FPS


@dataclass(frozen=True)
class Asked:
    """Which sequences are wanted."""

    kind: Kind
    prompt: int  # frames
    frames: int  # of the whole sequence, the prompt among them
    samples: int
    seed: int = 0
    data: str | None = None  # a dataset's uri; None: those that the model was trained on
    split: str = "val"


def no_prompts(loaded: Loaded, samples: int) -> Prompts:
    """Nothing is known: each sequence begins with the start id alone."""
    return Prompts(np.empty((samples, 0, *loaded.grid), np.int64), 0, has_truth=False)


def prompts(loaded: Loaded, asked: Asked, needs_truth: bool) -> Prompts:
    """The first sequences of the held-out stream of a seed; UserError where the dataset holds none so long."""
    stream = held_out(loaded, asked.data, asked.split, asked.kind)
    if stream.grid != loaded.grid:
        theirs, ours = ("×".join(map(str, grid)) for grid in (stream.grid, loaded.grid))
        raise UserError(f"{asked.data}: a grid of {theirs} codes, but {loaded.place} was trained on {ours}")
    try:
        return _first(_cut(stream, asked.frames, asked.seed), asked, has_truth=True)
    except UserError:
        if needs_truth or not asked.prompt:
            raise
    return _first(_cut(stream, asked.prompt, asked.seed), asked, has_truth=False)


def _cut(stream: Stream, frames: int, seed: int) -> Stream:
    """The same datasets, those that hold as much, in sequences of `frames` frames or images."""
    recipe, kept, refusals = stream.recipe, [], []
    for part in recipe.parts:
        candidate = Candidate(part.name, part.split, stream.dataset(part.name))
        try:
            sequences_of(candidate, (part.kind,), (frames, recipe.stride, frames), frames)
            kept.append(part)
        except UserError as refusal:
            refusals.append(refusal)
    if not kept:
        raise refusals[0]
    phases = (Phase(0, (1,) * len(kept)),)
    of = replace(recipe, parts=tuple(kept), phases=phases, frames=frames, hop=frames, images_per_sequence=frames)
    return Stream(replace(of, seed=seed))


def _first(stream: Stream, asked: Asked, has_truth: bool) -> Prompts:
    found = list(stream.sequences(range(asked.samples)))
    codes = np.stack([to_codes(sequence.tokens, *stream.grid) for sequence in found]).astype(np.int64)
    ids = tuple(part.dataset_id for part in stream.recipe.parts)
    return Prompts(codes, asked.prompt, has_truth, [sequence.clips for sequence in found], ids)
