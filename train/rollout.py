"""Frames by a model, past its context too: known frames and uniform numbers -> codes of all frames.

    segments(prompt, frames, context):  |prompt ─────new| ─▶ |last half ─────new| ─▶ …     each a prefill and new frames

When the context is full, its last half of frames becomes the beginning of a new one, and positions start again at 0.
Three regimes (the names of 1X's world-model challenge: fully autoregressive, temporally and fully teacher-forced):
`free` reads what it made; `frame` makes each frame after the true ones; `token` each code after the true ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET
from toto.train.models import LanguageModel
from toto.train.models.decoder import Decoder
from toto.train.sampling import Sampling

Regime = Literal["free", "frame", "token"]
Frames = Iterator[tuple[int, Tensor]]  # number of a frame, its codes int64 [R, cells]


@dataclass(frozen=True)
class Segment:
    """One stretch of positions 0 … context: frames `first` … `new`-1 are read, `new` … `end`-1 are made."""

    first: int
    new: int
    end: int


@dataclass(frozen=True)
class Rollout:
    """A model and how it is let go on; the same for every batch."""

    model: LanguageModel
    start_id: int  # 1 for video, 3 for images (Fig. 15)
    context_frames: int  # frames that fit into one context
    regime: Regime
    sampling: Sampling

    def __call__(self, known: Tensor, prompt: int, uniforms: Tensor, made: Callable[[], None] = lambda: None) -> Tensor:
        """Codes int64 [R, F, cells] of all frames, of which the first `prompt` are those of `known`.

        `known` int64 [R, n, cells] holds the prompt, and all F frames where the regime is not free; `uniforms` are
        float64 [R, F, cells], one for each code; `made` is called after each new frame.
        """
        rows, frames, cells = uniforms.shape
        codes = torch.empty((rows, frames, cells), dtype=torch.int64, device=known.device)
        codes[:, :prompt] = known[:, :prompt]
        past = codes if self.regime == "free" else known
        decoder = Decoder(self.model, rows, self.context_frames * cells)
        empty = decoder.mark()
        for segment in segments(prompt, frames, self.context_frames):
            frames_of = self._at_once(segment, past, uniforms)
            if self.regime != "token":
                decoder.rewind(empty)
                frames_of = self._one_by_one(decoder, segment, past, uniforms)
            for frame, new in frames_of:
                codes[:, frame] = new
                made()
        return codes

    def _one_by_one(self, decoder: Decoder, segment: Segment, past: Tensor, uniforms: Tensor) -> Frames:
        """Each frame code by code; the next one follows it, or the true one in its place."""
        logits = decoder.feed(self._ids(past[:, segment.first : segment.new]))
        for frame in range(segment.new, segment.end):
            begin, new = decoder.mark(), torch.empty_like(past[:, 0])
            for cell in range(new.shape[1]):
                if cell:
                    logits = decoder.feed(new[:, cell - 1 : cell] + CODE_OFFSET)
                new[:, cell] = self.sampling.choose(logits, uniforms[:, frame, cell])
            yield frame, new
            if frame + 1 < segment.end:
                if self.regime == "frame":
                    decoder.rewind(begin)
                read = decoder.position - begin.position
                logits = decoder.feed(past[:, frame, read:] + CODE_OFFSET)

    @torch.inference_mode()
    def _at_once(self, segment: Segment, past: Tensor, uniforms: Tensor) -> Frames:
        """All frames by one forward pass: every code after the true ones."""
        ids, top = self._ids(past[:, segment.first : segment.end])[:, :-1], self.model.config.layers
        states = self.model.features(ids, [top])[top]
        cells = past.shape[2]
        for frame in range(segment.new, segment.end):
            start = (frame - segment.first) * cells
            logits = self.model.logits(self.model.norm(states[:, start : start + cells]))
            yield frame, self.sampling.choose(logits, uniforms[:, frame])

    def _ids(self, codes: Tensor) -> Tensor:
        """The start id and the ids of codes [R, n, cells]: int64 [R, 1 + n * cells]."""
        return F.pad(codes.flatten(1) + CODE_OFFSET, (1, 0), value=self.start_id)


def segments(prompt: int, frames: int, context_frames: int) -> list[Segment]:
    """The stretches that make frames `prompt` … `frames`-1; UsageError where one context is too short for that."""
    if context_frames == 1 and frames > 1:
        raise UsageError(f"{frames} frames of a model whose context is one: it cannot go on from frame to frame")
    kept, new, found = context_frames // 2, prompt, []
    first = 0 if prompt < context_frames else prompt - kept
    while new < frames:
        found.append(Segment(first, new, min(frames, first + context_frames)))
        new = found[-1].end
        first = new - kept
    return found
