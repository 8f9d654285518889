"""Frames by a model, past its context too: known frames and uniform numbers -> all frames, losses of the true ones.

    segments(prompt, frames, context):  |prompt ─────new| ─▶ |last half ─────new| ─▶ …     each a prefill and new frames

When the context is full, its last half of frames becomes the beginning of a new one, and positions start again at 0.
Three regimes (the names of 1X's world-model challenge: fully autoregressive, temporally and fully teacher-forced):
`free` reads what it made; `frame` makes each frame after the true ones; `token` each code after the true ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET
from toto.train.generation.sampling import Sampling
from toto.train.models import LanguageModel
from toto.train.models.decoder import Decoder

Regime = Literal["free", "frame", "token"]
REGIMES: tuple[Regime, ...] = ("free", "frame", "token")


class NotFinite(Exception):
    """Logits of a frame are no finite numbers: nothing can be drawn from them."""


class Rolled(NamedTuple):
    """What a batch became."""

    codes: Tensor  # int64 [R, F, cells]
    losses: Tensor | None  # fp32 [R, F, cells], nats of the true codes, 0 in the prompt; None where no truth is known


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

    def __call__(self, known: Tensor, prompt: int, uniforms: Tensor, made: Callable[[], None] = lambda: None) -> Rolled:
        """All frames, of which the first `prompt` are those of `known`.

        `known` int64 [R, n, cells] holds the prompt, or all F frames, which it must where the regime is not free;
        `uniforms` are float64 [R, F, cells], one for each code; `made` is called after each new frame. NotFinite
        names the frame whose logits are.
        """
        rows, frames, cells = uniforms.shape
        codes = torch.empty((rows, frames, cells), dtype=torch.int64, device=known.device)
        codes[:, :prompt] = known[:, :prompt]
        losses = torch.zeros((rows, frames, cells), device=known.device) if known.shape[1] == frames else None
        batch = _Batch(self, known, uniforms, codes, losses)
        stretches = segments(prompt, frames, self.context_frames)
        # a short clip needs no whole context
        longest = max(segment.end - segment.first for segment in stretches)
        decoder = Decoder(self.model, rows, longest * cells)
        empty = decoder.mark()
        for segment in stretches:
            if self.regime == "token":
                made_frames = batch.at_once(segment)
            else:
                decoder.rewind(empty)
                made_frames = batch.one_by_one(decoder, segment)
            for _ in made_frames:
                made()
        return Rolled(codes, losses)


@dataclass(frozen=True)
class _Batch:
    """Clips that are made together, in buffers that have their whole shape from the start."""

    of: Rollout
    known: Tensor
    uniforms: Tensor
    codes: Tensor
    losses: Tensor | None

    @torch.inference_mode()
    def one_by_one(self, decoder: Decoder, segment: Segment) -> Iterator[int]:
        """Each frame code by code; the next one follows it, or the true one in its place."""
        past = self.codes if self.of.regime == "free" else self.known
        logits = decoder.feed(self._ids(past[:, segment.first : segment.new]))
        for frame in range(segment.new, segment.end):
            begin = decoder.mark()
            self._make(frame, logits, decoder)
            yield frame
            if frame + 1 < segment.end:
                if self.of.regime == "frame":
                    decoder.rewind(begin)
                read = decoder.position - begin.position
                logits = decoder.feed(past[:, frame, read:] + CODE_OFFSET)

    @torch.inference_mode()
    def at_once(self, segment: Segment) -> Iterator[int]:
        """All frames by one forward pass: every code after the true ones."""
        model = self.of.model
        ids, top = self._ids(self.known[:, segment.first : segment.end])[:, :-1], model.config.layers
        states = model.features(ids, [top])[top]
        cells = self.known.shape[2]
        for frame in range(segment.new, segment.end):
            start, tops = (frame - segment.first) * cells, []
            for row in range(len(states)):  # logits of one frame of one clip at a time: 16 of 256 codes are 134 MB
                logits = model.logits(model.norm(states[row, start : start + cells]))
                chosen = self.of.sampling.choose(logits, self.uniforms[row, frame])
                self.codes[row, frame] = chosen.codes
                tops.append(chosen.tops)
                if self.losses is not None:
                    self.losses[row, frame] = _nats(logits, self.known[row, frame])
            _refuse_not_finite(tops, frame)
            yield frame

    def _make(self, frame: int, logits: Tensor, decoder: Decoder) -> None:
        """One frame, whose first code the logits [R, used_ids] are of; what its true codes would have cost there."""
        uniforms = self.uniforms[:, frame].unbind(1)  # small models wait for calls: as few as can be for each code
        chosen = [self.of.sampling.choose(logits, uniforms[0])]
        losses = [] if self.losses is None else [_nats(logits, self.known[:, frame, 0])]
        for cell in range(1, len(uniforms)):
            logits = decoder.feed((chosen[-1].codes + CODE_OFFSET)[:, None])
            chosen.append(self.of.sampling.choose(logits, uniforms[cell]))
            if self.losses is not None:
                losses.append(_nats(logits, self.known[:, frame, cell]))
        _refuse_not_finite([each.tops for each in chosen], frame)
        self.codes[:, frame] = torch.stack([each.codes for each in chosen], 1)
        if self.losses is not None:
            self.losses[:, frame] = torch.stack(losses, 1)

    def _ids(self, codes: Tensor) -> Tensor:
        """The start id and the ids of codes [R, n, cells]: int64 [R, 1 + n * cells]."""
        return F.pad(codes.flatten(1) + CODE_OFFSET, (1, 0), value=self.of.start_id)


def _refuse_not_finite(tops: list[Tensor], frame: int) -> None:
    """NotFinite where a logit was not; asked once a frame, as the answer waits for the device."""
    if not bool(torch.stack(tops).isfinite().all()):
        raise NotFinite(f"the logits of frame {frame + 1} are not finite")


def _nats(logits_NV: Tensor, codes_N: Tensor) -> Tensor:
    """fp32 [N]: what these codes cost."""
    return F.cross_entropy(logits_NV, codes_N + CODE_OFFSET, reduction="none")


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
