"""Rotary positions over the raster: 1-D, base theta, halves rotated against each other (the layout of transformers).

Angles are computed in fp32 on the CPU, so that every device turns by the same ones, and applied in fp32.
"""

import torch
from torch import Tensor


def rotation(length: int, head_dim: int, theta: float) -> Tensor:
    """fp32 [2, length, head_dim / 2]: cosines and sines for positions 0 … length - 1."""
    with torch.inference_mode(False):  # what is made while validating may be used in training
        frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim)
        positions = torch.arange(length, dtype=torch.float32, device="cpu")
        angles = positions[:, None] * frequencies
        return torch.stack([angles.cos(), angles.sin()])


def rotate(x_BHTD: Tensor, rotation: Tensor) -> Tensor:
    """Queries or keys turned by their positions' angles; the dtype stays."""
    cos, sin = rotation[0], rotation[1]
    left, right = x_BHTD.float().chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(x_BHTD.dtype)
