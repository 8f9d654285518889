"""Logits -> codes: temperature, top-k, top-p or the most likely, from uniform numbers that the caller draws.

Special ids are no candidates, so pad, start and end never appear inside a picture. The same logits and the same
uniform number give the same code, whatever else is in the batch. Logits that are not finite give some code too, as
nothing here waits for a device: their tops tell.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET
from toto.shards.streaming.keyed import key


class Chosen(NamedTuple):
    """The next code of each row."""

    codes: Tensor  # int64 [...]
    tops: Tensor  # one number each: the largest logit of a code, which is not finite where one is NaN or too large


@dataclass(frozen=True)
class Sampling:
    """How the next code is chosen; top-k cuts before top-p, both after the temperature."""

    temperature: float = 1.0
    top_k: int | None = None  # the k most likely codes
    top_p: float | None = None  # the fewest codes whose probabilities reach p
    greedy: bool = False  # the most likely code; excludes the others

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise UsageError(f"temperature {self.temperature}: it must be above 0; --greedy takes the most likely code")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top-k {self.top_k}: at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top-p {self.top_p}: above 0, at most 1")
        if self.greedy and (self.temperature, self.top_k, self.top_p) != (1.0, None, None):
            raise UsageError("--greedy takes the most likely code; leave --temperature, --top-k and --top-p out")

    def choose(self, logits: Tensor, uniforms: Tensor) -> Chosen:
        """From logits [..., used_ids] and numbers float64 [...] of [0, 1)."""
        if self.greedy:
            tops, codes = logits[..., CODE_OFFSET:].max(-1)
            return Chosen(codes, tops)
        logits = logits[..., CODE_OFFSET:].double()
        tops = logits.amax(-1, keepdim=True)
        scores = (logits - tops) / self.temperature  # at most 0: no temperature overflows
        if self.top_k is None and self.top_p is None:
            return Chosen(_draw(scores.softmax(-1), uniforms), tops)
        scores, order = scores.sort(dim=-1, descending=True, stable=True)
        shares = scores[..., : self.top_k].softmax(-1)
        if self.top_p is not None:
            before = shares.cumsum(-1) - shares
            shares = shares * (before < self.top_p)
        return Chosen(order.gather(-1, _draw(shares, uniforms)[..., None])[..., 0], tops)


def uniforms(seed: int, samples: range, frames: int, cells: int) -> Tensor:
    """float64 [samples, frames, cells] of [0, 1): the numbers of each sample follow from the seed and its number."""
    drawn = [np.random.Generator(np.random.Philox(key=key(seed, "generate", i))) for i in samples]
    return torch.from_numpy(np.stack([generator.random((frames, cells)) for generator in drawn]))


def _draw(shares: Tensor, uniforms: Tensor) -> Tensor:
    """The first place where the running sum of shares exceeds the uniform part of their total."""
    sums = shares.cumsum(-1)
    total = sums[..., -1:].contiguous()
    # rounding must not lead past the last possible code, nor NaN past all of them
    last = torch.searchsorted(sums, total).clamp_(max=sums.shape[-1] - 1)
    return torch.minimum(torch.searchsorted(sums, uniforms[..., None] * total, right=True), last)[..., 0]
