"""Causal self-attention, and the keys and values that it keeps while sequences are decoded."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toto.train.models.lean import heads


class Attention(nn.Module):
    """Causal self-attention with one matrix for queries, keys and values; turned by positions where they are given."""

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)

    def forward(self, x_BTD: Tensor, rotation: Tensor | None, memory: "KeysValues | None" = None) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = heads(self.qkv(x_BTD), self.heads, rotation)
        mask = None
        if memory is not None:
            k, v, mask = memory.extend(k, v)
        if memory is not None and T == 1 and _shares_one_query(q):
            y = torch.softmax(q * (D // self.heads) ** -0.5 @ k.transpose(-1, -2), dim=-1) @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and T > 1)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class KeysValues:
    """Keys and values of one block (language_model.Memory); the buffers have their whole shape from the start."""

    def __init__(self, rows: int, heads: int, length: int, head_dim: int, like: Tensor) -> None:
        shape = (2, rows, heads, length, head_dim)
        self._keys, self._values = torch.empty(shape, dtype=like.dtype, device=like.device)
        self._position = 0

    def mark(self) -> int:
        """The position."""
        return self._position

    def rewind(self, mark: int) -> None:
        """Forgets what was read after that position."""
        self._position = mark

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keeps new keys and values; returns all so far, and which of them each new position sees, bool [T, S].

        None says: all so far are new, or there is one new position, which sees all.
        """
        start = self._position
        end = self._position = start + k_BHTD.shape[2]
        self._keys[:, :, start:end], self._values[:, :, start:end] = k_BHTD, v_BHTD
        if start == 0:
            return k_BHTD, v_BHTD, None
        kept = self._keys[:, :, :end], self._values[:, :, :end]
        if end == start + 1:
            return *kept, None
        reach = torch.arange(start, end, device=k_BHTD.device)[:, None]
        mask = torch.arange(end, device=k_BHTD.device) <= reach  # [new, all]: its own position and those before
        return *kept, mask


def _shares_one_query(q: Tensor) -> bool:
    """Whether torch's kernel shares the keys of one query among threads: then the last bits of a row depend on how many
    rows stand beside it."""
    return q.device.type == "cpu" and q.dtype == torch.float32 and torch.get_num_threads() > 1
