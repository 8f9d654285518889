"""Decoding with keys and values kept: a sequence is fed piece by piece, each position is computed once.

    Decoder(model, rows, length) ─ feed([start] + prompt) ─▶ logits of the next id ─ feed(id) ─▶ … ─ rewind(n) ─▶ …

The buffers have their whole shape from the start, [2, rows, heads, length, head_dim] for each block.
"""

import torch
from torch import Tensor

from toto.train.models.llama import Llama


class Decoder:
    """A model with what it has read so far, for `rows` sequences of the same length, at most `length` positions."""

    def __init__(self, model: Llama, rows: int, length: int) -> None:
        weight, config = model.table.weight, model.config
        shape = (2, rows, config.heads, length, config.dim // config.heads)
        self.model, self.length = model, length
        self.position = 0  # ids read so far
        self._layers = [_Layer(torch.empty(shape, dtype=weight.dtype, device=weight.device)) for _ in model.blocks]
        self._rotation = model.rotation(length, weight.device)

    @torch.inference_mode()
    def feed(self, ids_RN: Tensor) -> Tensor:
        """Reads int64 [rows, N] more ids; logits fp32 [rows, used_ids] of the id that comes next."""
        end = self.position + ids_RN.shape[1]
        if end > self.length:
            raise ValueError(f"{end} ids fed to a decoder of {self.length} positions")
        x, turns = self.model.embed(ids_RN), self._rotation[:, self.position : end]
        for block, layer in zip(self.model.blocks, self._layers, strict=True):
            layer.position = self.position
            x = block(x, turns, layer)
        self.position = end
        return self.model.logits(self.model.norm(x[:, -1]))

    def rewind(self, position: int) -> None:
        """Forgets what was read from `position` on."""
        if not 0 <= position <= self.position:
            raise ValueError(f"position {position} of {self.position} that were read")
        self.position = position


class _Layer:
    """Keys and values of one block (llama.Memory)."""

    def __init__(self, kept: Tensor) -> None:
        self._keys, self._values = kept
        self.position = 0

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        start, end = self.position, self.position + k_BHTD.shape[2]
        self._keys[:, :, start:end], self._values[:, :, start:end] = k_BHTD, v_BHTD
        if start == 0:
            return k_BHTD, v_BHTD, None
        kept = self._keys[:, :, :end], self._values[:, :, :end]
        if end == start + 1:
            return *kept, None
        reach = torch.arange(start, end, device=k_BHTD.device)[:, None]
        mask = torch.arange(end, device=k_BHTD.device) <= reach  # [new, all]: its own position and those before
        return *kept, mask
