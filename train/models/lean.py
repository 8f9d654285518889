"""Formulas of the blocks with their gradients by hand, so that a step keeps less for the backward pass and passes over
memory less often. torch's autograd keeps 28 widths of a position in a block of Llama, these 17 (hidden = 4 widths).

    rms_norm     keeps x (which the residual sum keeps anyway) and one number a position
    heads        keeps nothing: turning back by the same angles is the gradient
    swiglu_down  keeps gate and up; silu(gate) * up is made again for the gradient of the last matrix

Each is the plain formula where no gradient is asked for, and while torch.compile reads the code, which fuses by itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from toto.train.models.products import multiply
from toto.train.models.rope import rotate


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / rms(x) * gain over the last dimension, in the dtype of x (sums in fp32)."""
    if x.device.type == "cpu" and _by_hand():  # a GPU has a kernel that keeps no more
        return _RMSNorm.apply(x, gain.to(x.dtype), eps)
    return F.rms_norm(x, gain.shape, gain.to(x.dtype), eps)


def heads(qkv_BTE: Tensor, count: int, rotation: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """[B, T, 3D] -> queries, keys and values [B, H, T, D / H], the first two turned by their positions' angles."""
    if rotation is not None and _by_hand():
        return _Heads.apply(qkv_BTE, count, rotation)
    B, T, E = qkv_BTE.shape
    qkv = qkv_BTE.view(B, T, 3, count, E // 3 // count).permute(2, 0, 3, 1, 4)
    q, k = qkv[:2] if rotation is None else rotate(qkv[:2], rotation)  # both at once: few rows cost calls, not sums
    return q, k, qkv[2]


def swiglu_down(gate_up: Tensor, down: nn.Linear) -> Tensor:
    """[..., 2h] -> silu(gate) * up -> [..., D], by the matrix of `down` [D, h]."""
    if _by_hand():
        return _SwiGLUDown.apply(gate_up, down.weight.to(gate_up.dtype))
    gate, up = gate_up.chunk(2, dim=-1)
    product: Tensor = down(F.silu(gate) * up)
    return product


def _by_hand() -> bool:
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, eps: float) -> Tensor:
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # 1 / rms
        ctx.save_for_backward(x, gain, scale)
        return (wide * scale).mul_(gain).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor, None]:
        """y = x s g, with s = (mean(x²) + eps)^-1/2 and ds/dx = -s³ x / D."""
        x, gain, scale = (tensor.float() for tensor in ctx.saved_tensors)
        wide = given.float()
        x_given = x * wide
        back = torch.mv(x_given.flatten(0, -2), gain).view_as(scale).mul_(scale**3).div_(x.shape[-1])
        of_gain = torch.mv(x_given.flatten(0, -2).t(), scale.flatten())
        of_x = torch.mul(wide, gain, out=x_given).mul_(scale).addcmul_(x, back, value=-1)
        return of_x.to(given.dtype), of_gain.to(given.dtype), None


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv_BTE: Tensor, count: int, rotation: Tensor) -> tuple[Tensor, ...]:
        B, T, E = qkv_BTE.shape
        ctx.save_for_backward(rotation)
        parts = qkv_BTE.view(B, T, 3, count, E // 3 // count).permute(2, 0, 3, 1, 4)
        made = parts.new_empty(parts.shape)  # one new tensor: values in the old one would keep it all
        _turn(parts[:2], rotation, made[:2])
        made[2].copy_(parts[2])
        return made[0], made[1], made[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None]:
        B, H, T, C = given[0].shape
        cos, sin = ctx.saved_tensors[0]
        made = given[0].new_empty(B, T, 3, H, C)
        parts = made.permute(2, 0, 3, 1, 4)
        for i in (0, 1):
            _turn(given[i], (cos, -sin), parts[i])
        parts[2].copy_(given[2])
        return made.view(B, T, 3 * H * C), None, None


def _turn(x: Tensor, rotation: Any, into: Tensor) -> None:
    """rope.rotate in fp32, written into a tensor of the shape and dtype of x."""
    cos, sin = rotation
    left, right = x.float().chunk(2, dim=-1)
    made = into if into.dtype == torch.float32 else torch.empty_like(into, dtype=torch.float32)
    first, second = made.chunk(2, dim=-1)
    torch.mul(left, cos, out=first).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=second).addcmul_(left, sin)
    if made is not into:
        into.copy_(made)


class _SwiGLUDown(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, down: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up, down)
        gate, up = gate_up.chunk(2, dim=-1)
        product = F.silu(gate).mul_(up)
        return multiply(product.flatten(0, -2), down.t()).view(*product.shape[:-1], len(down))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, Tensor]:
        gate_up, down = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        made = torch.empty_like(gate_up)
        of_gate, of_up = made.chunk(2, dim=-1)
        rows, product = given.flatten(0, -2), F.silu(gate)
        of_product = multiply(rows, down).view_as(product)
        torch.mul(of_product, product, out=of_up)
        torch.ops.aten.silu_backward.grad_input(of_product.mul_(up), gate, grad_input=of_gate)
        of_down = multiply(rows.t(), product.mul_(up).flatten(0, -2))
        return made, of_down
