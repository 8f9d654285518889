"""Products of matrices in the states' dtype; in bf16 they go through fp32 on a CPU without instructions for bf16.

torch multiplies bf16 there in a plain loop on one thread, some thirty times as slow as fp32. A number in bf16 is one in
fp32 too, and instructions for bf16 add up in fp32: so the factors are widened, and the product is rounded once. That is
what such instructions give, but for the order of the sum.
"""

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Linear(nn.Linear):
    """x W^T + b by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight_NK: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """[..., K] -> x W^T + b [..., N], in autocast's dtype where that is on."""
    if _has_no_bf16(x) and (computed := as_computed(x)).dtype == torch.bfloat16:
        return _Linear.apply(computed, weight_NK, bias_N)
    return F.linear(x, weight_NK, bias_N)


def multiply(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b of two matrices in their dtype, written into `out` where that is given. It has no gradient of its own."""
    if a.dtype != torch.bfloat16 or not _has_no_bf16(a):
        return torch.mm(a, b, out=out)
    made = _wide(a, b)
    return made.to(a.dtype) if out is None else out.copy_(made)


def attention(q_BHTC: Tensor, k_BHSC: Tensor, v_BHSC: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """torch's scaled_dot_product_attention -> [B, H, T, C]. Its forward pass alone is as fast in bf16."""
    if not q_BHTC.requires_grad or q_BHTC.dtype != torch.bfloat16 or not _has_no_bf16(q_BHTC):
        return F.scaled_dot_product_attention(q_BHTC, k_BHSC, v_BHSC, mask, is_causal=is_causal)
    with torch.autocast("cpu", enabled=False):
        q, k, v = q_BHTC.float(), k_BHSC.float(), v_BHSC.float()
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal).to(q_BHTC.dtype)


def as_computed(x: Tensor) -> Tensor:
    """In autocast's dtype where that is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


@cache
def cpu_has_bf16() -> bool:
    """Whether oneDNN multiplies bf16 on this CPU, which has instructions for it or for as wide sums."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _has_no_bf16(x: Tensor) -> bool:
    """Whether what computes on x has no instructions for bf16; what is compiled stays as it is written."""
    return not torch.compiler.is_compiling() and x.device.type == "cpu" and not cpu_has_bf16()


def _wide(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return torch.mm(a.float(), b.float())


def _rows(x: Tensor) -> Tensor:
    """[..., K] -> [n, K]"""
    return x.reshape(-1, x.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        made = _wide(_rows(x), weight.to(x.dtype).t())
        if bias is not None:
            made += bias.to(x.dtype)
        return made.to(x.dtype).view(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        given = _rows(given)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _wide(given, weight.to(x.dtype)).to(x.dtype).view_as(x) if of_x else None,
            _wide(given.t(), _rows(x)).to(weight.dtype) if of_weight else None,
            given.float().sum(0).to(weight.dtype) if of_bias else None,
        )
