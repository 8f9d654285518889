"""Matrices in the layout that oneDNN multiplies fastest, while sequences are decoded on a CPU.

    with packed(model): …    every matrix multiplies by its packed copy; afterwards the model is as before

A row of a product has the same bits whatever rows stand beside it, so a clip does not depend on its batch; few rows
are filled up where they have others (rows.py). Milliseconds for all matrices of one position of `base`, one core, and
in brackets torch's own products: in fp32 on an AMD Zen 3 31 (30) for 1 row, 55 (80) for 8, 80 (109) for 16; in bf16 on
an AMD Zen 4, which has instructions for it, 17 (30), 19 (34), 37 (49). In bf16 without such instructions many rows are
multiplied in fp32: 16 of torch's own took 384. Torch's own products serve small models (small.py) and CPUs without
oneDNN, or with one in which a row's bits depend on more than the number of rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from toto.train.models.language_model import LanguageModel
from toto.train.models.products import cpu_has_bf16
from toto.train.models.rows import Functions, Product, filled, least_of, least_rows, standing_in
from toto.train.models.small import ready

ROWS = 16  # that the layout is chosen for; it serves any number
SMALL = 16 << 20  # bytes of weights


class PackedLinear:
    """x -> x W^T + b by a packed copy of W, of at least so many rows."""

    def __init__(self, weight_NK: Tensor, bias_N: Tensor | None, least: int = 1) -> None:
        weight, bias = weight_NK.detach(), None if bias_N is None else bias_N.detach()
        self._dtype = weight.dtype if cpu_has_bf16() else torch.float32
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.to(self._dtype), ROWS)
        self._bias = None if bias is None else bias.to(self._dtype)
        self._narrow = (weight, bias) if weight.dtype != self._dtype else None
        self._least = least

    def __call__(self, x: Tensor) -> Tensor:
        if self._narrow is not None and x.numel() == x.shape[-1]:
            return F.linear(x, *self._narrow)  # one row: half the bytes to read
        rows = x.reshape(-1, x.shape[-1])
        made = self.multiply(filled(rows, self._least))[: len(rows)]
        return made.view(*x.shape[:-1], -1).to(x.dtype)

    def multiply(self, x_NK: Tensor) -> Tensor:
        """The product of just these rows, in the dtype that is computed in."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x_NK.to(self._dtype), self._packed, self._bias, "none", [], "")
        return y


@contextmanager
def packed(model: LanguageModel) -> Iterator[bool]:
    """Makes a model on a CPU ready to decode, which must not be trained meanwhile; True where matrices are packed."""
    if model.table.weight.device.type != "cpu":
        yield False
    elif sum(weight.nbytes for weight in model.parameters()) < SMALL:
        with ready(model):
            yield False
    else:
        least = least_packed_rows(model)
        with standing_in(_as_they_are(model) if least is None else _packed(model, least)):
            yield least is not None


@torch.no_grad()
def least_packed_rows(model: LanguageModel) -> dict[torch.Size, int] | None:
    """From how many rows on a row of a packed product has its own bits, by shapes of matrices; None: nothing packs."""
    if not torch.backends.mkldnn.is_available():
        return None
    found: dict[torch.Size, int] = {}
    for weight in {each.weight.shape: each.weight for each in model.matrices()}.values():
        least = least_of(PackedLinear(weight, None).multiply, weight.shape[1], weight)
        if least is None:
            return None
        found[weight.shape] = max(least, _quick_rows())
    return found


def _quick_rows() -> int:
    """With AVX-512 four rows take a sixth less time than one, in fp32 and in bf16; with AVX2 they take longer."""
    return 4 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 1


def _packed(model: LanguageModel, least: dict[torch.Size, int]) -> Functions:
    for each in model.matrices():
        yield each.owner, each.method, PackedLinear(each.weight, each.bias, least[each.weight.shape])


def _as_they_are(model: LanguageModel) -> Functions:
    matrices = list(model.matrices())
    least = least_rows(each.weight.t() for each in matrices)
    return ((each.owner, each.method, Product(each.weight.detach().t(), each.bias, least)) for each in matrices)
