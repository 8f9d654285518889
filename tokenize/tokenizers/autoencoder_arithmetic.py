"""Two steps that taming and diffusers compute in different ways, each its own way: then the bits are the same.

Codes lie closer together than rounding moves a latent, so the order of sums is part of a code. Everything else in
autoencoder_net.py is one call of torch, and the same call in both packages.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Arithmetic:
    """How a package computes."""

    swish: Callable[[Tensor], Tensor]  # x · sigmoid(x)
    attention: Callable[[Tensor, nn.Conv2d, nn.Conv2d, nn.Conv2d, nn.Conv2d], Tensor]  # normed x, then q, k, v, out


def _swish_of_taming(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _attention_of_taming(x: Tensor, q: nn.Conv2d, k: nn.Conv2d, v: nn.Conv2d, out: nn.Conv2d) -> Tensor:
    """1×1 convolutions and two matrix products, [n, c, h, w] in and out."""
    queries, keys, values = (layer(x).flatten(2) for layer in (q, k, v))  # [n, c, h w]
    weights = (torch.bmm(queries.mT, keys) * x.shape[1] ** -0.5).softmax(2)  # [n, h w of q, h w of k]
    return out(torch.bmm(values, weights.mT).reshape(x.shape))


def _attention_of_diffusers(x: Tensor, q: nn.Conv2d, k: nn.Conv2d, v: nn.Conv2d, out: nn.Conv2d) -> Tensor:
    """Linear layers over places and scaled_dot_product_attention of one head, [n, c, h, w] in and out."""
    places = x.flatten(2).mT  # [n, h w, c]
    queries, keys, values = (_linear(places, layer)[:, None] for layer in (q, k, v))
    attended = F.scaled_dot_product_attention(queries, keys, values)[:, 0]
    return _linear(attended, out).mT.reshape(x.shape)


def _linear(places: Tensor, layer: nn.Conv2d) -> Tensor:
    return F.linear(places, layer.weight.flatten(1), layer.bias)


TAMING = Arithmetic(_swish_of_taming, _attention_of_taming)
DIFFUSERS = Arithmetic(F.silu, _attention_of_diffusers)
