"""Causal self-attention, and the keys and values that it keeps while sequences are decoded."""

import torch
from torch import Tensor, nn

from toto.train.models.lean import heads
from toto.train.models.products import Linear, attention


class Attention(nn.Module):
    """Causal self-attention with one matrix for queries, keys and values; turned by positions where they are given."""

    def __init__(self, dim: int, heads: int, bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim, bias=bias)
        self.out = Linear(dim, dim, bias=bias)

    def forward(self, x_BTD: Tensor, rotation: Tensor | None, memory: "KeysValues | None" = None) -> Tensor:
        return self.out(attend(*heads(self.qkv(x_BTD), self.heads, rotation), memory))


def attend(q_BHTC: Tensor, k_BHTC: Tensor, v_BHTC: Tensor, memory: "KeysValues | None") -> Tensor:
    """Values [B, T, H * C] by causal attention of C channels a head, to what the memory holds too, which keeps them."""
    q, k, v, mask, T = q_BHTC, k_BHTC, v_BHTC, None, q_BHTC.shape[2]
    if memory is not None:
        k, v, mask = memory.extend(k, v)
        q = q.to(k.dtype)
        if T == 1 and _shares_one_query(q):
            return _attend_from_one(q, k, v).to(q_BHTC.dtype)
    y = attention(q, k, v, mask, is_causal=mask is None and T > 1)
    return y.transpose(1, 2).flatten(2).to(q_BHTC.dtype)


def _attend_from_one(q_BH1C: Tensor, k_BHSC: Tensor, v_BHSC: Tensor) -> Tensor:
    """The same for one position that sees all S, by plain products."""
    q, k, v = (each.flatten(0, 1) for each in (q_BH1C, k_BHSC, v_BHSC))  # views: torch.matmul would copy all keys
    shares = torch.bmm(q * q.shape[2] ** -0.5, k.transpose(1, 2)).softmax(2)
    return torch.bmm(shares, v).view(len(q_BH1C), 1, -1)


def _shares_one_query(q: Tensor) -> bool:
    """Whether torch's kernel shares the keys of one query among threads: then the last bits of a row depend on how many
    rows stand beside it."""
    return q.device.type == "cpu" and q.dtype == torch.float32 and torch.get_num_threads() > 1


class KeysValues:
    """Keys and values of one block (language_model.Memory); the buffers have their whole shape from the start.

    On a CPU they are float32, for torch's attention of one position takes three to five times as long in bf16 (16 clips
    of 12 heads and 100 positions: 2.1 ms, and 0.46 in float32; AMD Zen 4).
    """

    def __init__(self, rows: int, heads: int, length: int, head_dim: int, like: Tensor) -> None:
        dtype = torch.float32 if like.device.type == "cpu" else like.dtype
        self.both = torch.empty((2, rows, heads, length, head_dim), dtype=dtype, device=like.device)
        self._keys, self._values = self.both
        self.position = 0

    def mark(self) -> int:
        """The position."""
        return self.position

    def rewind(self, mark: int) -> None:
        """Forgets what was read after that position."""
        self.position = mark

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keeps new keys and values; returns all so far, and which of them each new position sees, bool [T, S].

        None says: all so far are new, or there is one new position, which sees all.
        """
        start, new = self.position, k_BHTD.shape[2]
        end = self.position = start + new
        self._keys.narrow(2, start, new).copy_(k_BHTD)  # narrow costs half of what slices cost
        self._values.narrow(2, start, new).copy_(v_BHTD)
        if start == 0:
            return k_BHTD, v_BHTD, None
        kept = self._keys.narrow(2, 0, end), self._values.narrow(2, 0, end)
        return *kept, seen_from(start, end, k_BHTD.device)


def seen_from(start: int, end: int, device: torch.device) -> Tensor | None:
    """Which of `end` positions each of the last, from `start` on, sees: itself and those before, bool [end - start,
    end]; None where it is one, which sees all."""
    if end == start + 1:
        return None
    reach = torch.arange(start, end, device=device)[:, None]
    return torch.arange(end, device=device) <= reach
