"""Small models on a CPU: a position costs calls more than sums, so it takes few calls, on one thread, in fp32.

    with ready(model): …    products by `Product`, blocks of Llama by `FewCalls`; afterwards the model is as before

Weights in bf16 are widened: matrices of this size lie in the cache, where bf16 saves nothing, and most processors have
no instructions for it. The state is not rounded to bf16 then.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from toto.train.models.attention import KeysValues, seen_from
from toto.train.models.language_model import LanguageModel
from toto.train.models.llama import Block, Llama, RMSNorm
from toto.train.models.rows import Functions, Product, filled, least_rows, standing_in

FAR = 1 << 19  # bytes: half of a second-level cache


class FewCalls:
    """A block of Llama: gains lie in the matrices, and one complex product turns queries and keys.

    The channels of a pair that turns together stand side by side, in queries and keys alike.
    """

    def __init__(self, block: Block, least: int) -> None:
        attention, mlp = block.attention, block.mlp
        D = attention.out.in_features
        self._heads, self._least, self._direction = attention.heads, least, Direction(block.attention_norm)
        qkv = with_gain(attention.qkv.weight, block.attention_norm)
        qkv[:D] *= (D // self._heads) ** -0.5  # as attention scales its products
        pairs = qkv[: 2 * D].view(2, self._heads, 2, -1, D).transpose(2, 3)
        self._qkv = turned(torch.cat([pairs.reshape(2 * D, D), qkv[2 * D :]]))
        self._gate_up = turned(with_gain(mlp.gate_up.weight, block.mlp_norm))
        self._out, self._down = turned(attention.out.weight), turned(mlp.down.weight)

    def __call__(self, x_BTD: Tensor, turns: Tensor, memory: "InOneLine | None" = None) -> Tensor:
        B, T, D = x_BTD.shape
        rows = B * T
        memory = memory or InOneLine(B, self._heads, T, D // self._heads)
        if B > 1 and T > 1:  # clip by clip: what is made of one stays in the cache
            clips = [self(x, turns, one) for x, one in zip(x_BTD.split(1), memory.clips(B), strict=True)]
            memory.position += T
            return torch.cat(clips)
        x = filled(x_BTD.reshape(rows, D), self._least)
        pairs = torch.mm(self._direction(x), self._qkv)[:rows].view(B, T, 3, self._heads, -1, 2)
        qkv = torch.view_as_real(torch.view_as_complex(pairs) * turns).view(B, T, 3, self._heads, -1)
        seen = memory.seen(qkv.permute(2, 0, 3, 1, 4).reshape(3, B * self._heads, T, -1))
        seen = seen.view(B, self._heads, T, -1).transpose(1, 2).reshape(rows, D)
        x = torch.addmm(x, filled(seen, self._least), self._out)
        gate, up = torch.mm(self._direction(x), self._gate_up).chunk(2, dim=-1)
        x = torch.addmm(x, F.silu(gate).mul_(up), self._down)
        return x[:rows].view(B, T, D)


class InOneLine(KeysValues):
    """Keys and values that one call keeps, of the heads of all clips in one line.

    Two plain products are less than torch's attention: for 2 heads and 100 positions 22 µs in place of 37 with one
    clip, 90 in place of 120 with 16 (AMD Zen 3).
    """

    def __init__(self, rows: int, heads: int, length: int, head_dim: int) -> None:
        super().__init__(rows, heads, length, head_dim, torch.empty(0, dtype=torch.float32))
        self._line = self.both.flatten(1, 2)  # [2, N, S, C]

    def clips(self, count: int) -> "list[InOneLine]":
        """The parts of this memory that belong to each clip, where they stand now."""
        parts = [copy.copy(self) for _ in range(count)]
        for part, line in zip(parts, self._line.chunk(count, dim=1), strict=True):
            part._line = line
        return parts

    def seen(self, qkv_3NTC: Tensor) -> Tensor:
        """Values [N, T, C] by attention of new positions of N heads to all so far; queries are scaled already."""
        start, new = self.position, qkv_3NTC.shape[2]
        end = self.position = start + new
        self._line.narrow(2, start, new).copy_(qkv_3NTC[1:])
        q, (k, v) = qkv_3NTC[0], self._line.narrow(2, 0, end)
        if new == 1:
            shares = torch.bmm(q, _fetched(k).transpose(1, 2)).softmax(2)
            return torch.bmm(shares, _fetched(v))
        mask = seen_from(start, end, q.device) if start else None
        whole = F.scaled_dot_product_attention(q[None], k[None], v[None], mask, is_causal=mask is None, scale=1.0)
        return whole[0]


def _fetched(x: Tensor) -> Tensor:
    """The same, brought nearer where it is large: a sum reads it in an order that processors foresee, products do not.

    16 clips of `tiny`, AMD Zen 4: a position takes 4 to 14 % less time, the more the less cache others leave.
    """
    if x.nbytes > FAR:
        x.sum()
    return x


class Direction:
    """x / rms(x) / sqrt(D), where rms is sqrt(|x|² / D + eps): an RMSNorm without its gain, in three calls."""

    def __init__(self, norm: RMSNorm) -> None:
        self._floor = torch.tensor(math.sqrt(len(norm.weight) * norm.eps))

    def __call__(self, x: Tensor) -> Tensor:
        return x / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self._floor)


def turned(weight_NK: Tensor) -> Tensor:
    """[K, N], in whose layout few rows are multiplied in two thirds of the time."""
    return weight_NK.detach().t().contiguous()


def with_gain(weight: Tensor, norm: RMSNorm) -> Tensor:
    """The matrix that multiplies what `Direction` gives, where `weight` multiplies what the norm gives."""
    return weight.detach() * norm.weight.detach() * math.sqrt(weight.shape[1])


class Turns:
    """Llama's positions for FewCalls: complex [T, 3, 1, d_head / 2], for queries, keys, and values, which stay."""

    def __init__(self, model: Llama) -> None:
        self._angles, self._made = model.positions, torch.empty(0)

    def __call__(self, start: int, end: int, device: torch.device) -> Tensor:
        if len(self._made) < end:
            turn = torch.complex(*self._angles(0, max(end, 2 * len(self._made)), device))  # one more each time
            self._made = torch.stack([turn, turn, torch.ones_like(turn)], dim=1)[:, :, None]
        return self._made[start:end]


@contextmanager
def ready(model: LanguageModel) -> Iterator[None]:
    """Prepares a model on a CPU, which must not be trained meanwhile."""
    threads, half = torch.get_num_threads(), model.table.weight.dtype == torch.bfloat16
    torch.set_num_threads(1)
    try:
        if half:
            model.float()
        with standing_in(list(_functions(model))):
            yield
    finally:
        if half:
            model.halve()
        torch.set_num_threads(threads)


def _functions(model: LanguageModel) -> Functions:
    matrices = [(*matrix, turned(matrix.weight)) for matrix in model.matrices()]
    least = least_rows(matrix for *_, matrix in matrices)
    for owner, method, _, bias, matrix in matrices:
        yield owner, method, Product(matrix, bias, least)
    if isinstance(model, Llama) and least is not None:
        yield from _few_calls(model, least)


def _few_calls(model: Llama, least: int) -> Functions:
    norm: Any = model.norm
    blocks: list[Any] = list(model.blocks)
    c = model.config
    yield model, "positions", Turns(model)
    yield model, "memories", partial(_memories, c.layers, c.heads, c.dim // c.heads)
    yield norm, "forward", Direction(norm)
    yield model, "head", Product(turned(with_gain(model.table.weight[: model.used_ids], norm)), None, least)
    yield from ((block, "forward", FewCalls(block, least)) for block in blocks)


def _memories(layers: int, heads: int, head_dim: int, rows: int, length: int) -> list[InOneLine]:
    return [InOneLine(rows, heads, length, head_dim) for _ in range(layers)]
