"""Matrices in the layout that oneDNN multiplies fastest, while sequences are decoded on a CPU.

    with packed(model): …    every nn.Linear and the head multiply by packed copies; afterwards they are as before

A row of a product has the same bits whatever rows stand beside it, so a clip does not depend on its batch; torch's own
products do. `base` in fp32, one core of an AMD Zen 3, milliseconds for all matrices of one position: 1 row 31 (30
before; reading them takes 30), 8 rows 55 (80), 16 rows 80 (109). In bf16, on a CPU without instructions for it, many
rows are multiplied in fp32: 16 rows took 384. Of a small model a call costs more than its sums: it stays as it is, and
one thread computes it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toto.train.models.language_model import LanguageModel

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
    """Packs the matrices of a model, which must not be trained meanwhile; False where they stay as they are."""
    if model.table.weight.device.type == "cpu" and sum(weight.nbytes for weight in model.parameters()) < SMALL:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield False
        finally:
            torch.set_num_threads(threads)
        return
    if not can_pack(model.table.weight):
        yield False
        return
    linear = [module for module in model.modules() if type(module) is nn.Linear]
    try:
        for module in linear:
            vars(module)["forward"] = PackedLinear(module.weight, module.bias)
        vars(model)["head"] = PackedLinear(model.table.weight[: model.used_ids], None)
        yield True
    finally:
        for name, owners in (("forward", linear), ("head", [model])):
            for owner in owners:
                vars(owner).pop(name, None)


def can_pack(weight: Tensor) -> bool:
    """Whether oneDNN is here, on a CPU, and faster than torch: it is not where bf16 has instructions of its own."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return weight.dtype == torch.float32 or not torch.ops.mkldnn._is_mkldnn_bf16_supported()
