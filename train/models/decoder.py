"""Decoding with what was read kept: a sequence is fed piece by piece, each position is computed once.

Decoder(model, rows, length) ─ feed([start] + prompt) ─▶ logits of the next id ─ feed(id) ─▶ … ─ rewind(mark) ─▶ …
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toto.train.models.language_model import LanguageModel


@dataclass(frozen=True)
class Mark:
    """A place that a decoder can come back to."""

    position: int  # ids read before it
    memories: list[Any]


class Decoder:
    """A model with what it has read so far, for `rows` sequences of the same length, at most `length` positions."""

    def __init__(self, model: LanguageModel, rows: int, length: int) -> None:
        self.model, self.length = model, length
        self.position = 0  # ids read so far
        self._memories = model.memories(rows, length)

    @torch.inference_mode()
    def feed(self, ids_RN: Tensor) -> Tensor:
        """Reads int64 [rows, N] more ids; logits fp32 [rows, used_ids] of the id that comes next."""
        end = self.position + ids_RN.shape[1]
        if end > self.length:
            raise ValueError(f"{end} ids fed to a decoder of {self.length} positions")
        x = self.model.embed(ids_RN, self.position)
        told = self.model.positions(self.position, end, x.device)
        for block, memory in zip(self.model.blocks, self._memories, strict=True):
            x = block(x, told, memory)
        self.position = end
        return self.model.logits(self.model.norm(x[:, -1]))

    def mark(self) -> Mark:
        """Where it stands now."""
        return Mark(self.position, [memory.mark() for memory in self._memories])

    def rewind(self, mark: Mark) -> None:
        """Forgets what was read after the mark."""
        if mark.position > self.position:
            raise ValueError(f"position {mark.position} of {self.position} that were read")
        for memory, kept in zip(self._memories, mark.memories, strict=True):
            memory.rewind(kept)
        self.position = mark.position
