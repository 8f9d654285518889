"""Matrices in the layout that oneDNN multiplies fastest, while sequences are decoded on a CPU.

    with packed(model): …    every matrix multiplies by its packed copy; afterwards the model is as before

A row of a product has the same bits whatever rows stand beside it, so a clip does not depend on its batch; torch's own
products do. `base` in fp32, one core of an AMD Zen 3, milliseconds for all matrices of one position: 1 row 31 (30
before; reading them takes 30), 8 rows 55 (80), 16 rows 80 (109). In bf16, on a CPU without instructions for it, many
rows are multiplied in fp32: 16 rows took 384. Torch's own products (rows.py) serve small models (small.py), CPUs
without oneDNN or with instructions for bf16, and an oneDNN where few rows have other bits, as torch 2.11's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from toto.train.models.language_model import LanguageModel
from toto.train.models.products import cpu_has_bf16
from toto.train.models.rows import Functions, Product, least_rows, standing_in
from toto.train.models.small import ready

ROWS = 16  # that the layout is chosen for; it serves any number
SMALL = 16 << 20  # bytes of weights


class PackedLinear:
    """x -> x W^T + b by a packed copy of W."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight.detach(), None if bias is None else bias.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.float(), ROWS)
        self._wide_bias = None if self._bias is None else self._bias.float()

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 and x.numel() == x.shape[-1]:
            return F.linear(x, self._weight, self._bias)  # one row: half the bytes to read
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.float(), self._packed, self._wide_bias, "none", [], "")
        return y.to(x.dtype)


@contextmanager
def packed(model: LanguageModel) -> Iterator[bool]:
    """Makes a model on a CPU ready to decode, which must not be trained meanwhile; True where matrices are packed."""
    if model.table.weight.device.type != "cpu":
        yield False
    elif sum(weight.nbytes for weight in model.parameters()) < SMALL:
        with ready(model):
            yield False
    else:
        packs = can_pack(model.table.weight)
        with standing_in(_packed(model) if packs else _as_they_are(model)):
            yield packs


def _packed(model: LanguageModel) -> Functions:
    return ((each.owner, each.method, PackedLinear(each.weight, each.bias)) for each in model.matrices())


def _as_they_are(model: LanguageModel) -> Functions:
    matrices = list(model.matrices())
    least = least_rows(each.weight.t() for each in matrices)
    return ((each.owner, each.method, Product(each.weight.detach().t(), each.bias, least)) for each in matrices)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN is here, keeps a row's bits, and is faster than torch: it is not where bf16 has instructions."""
    if not torch.backends.mkldnn.is_available():
        return False
    return (weight.dtype == torch.float32 or not cpu_has_bf16()) and _rows_are_their_own()


@cache
@torch.no_grad()
def _rows_are_their_own() -> bool:
    """Whether the rows of a small product, fewer of them at a time, have the bits that they have among ROWS."""
    draw = torch.Generator().manual_seed(0)
    x, product = torch.randn(ROWS, 64, generator=draw), PackedLinear(torch.randn(64, 64, generator=draw), None)
    whole = product(x)
    return all(torch.equal(product(x[:n]), whole[:n]) for n in range(1, ROWS))
