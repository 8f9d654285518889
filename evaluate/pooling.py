"""Token features of a window -> one vector: per-frame means, or attention with a learned query.

Legend: B windows, T frames, N = T*cells code positions, D channels, H heads, C classes.
"""

import math

import torch
from torch import Tensor, nn

EPS = 1e-6  # of the normalisation before every head, as MAE's and AIM's BatchNorm1d(affine=False)


def frame_means(features_BND: Tensor, frames: int) -> Tensor:
    """[B, T, D] float32: the mean over the cells of each frame."""
    batch, _, dim = features_BND.shape
    return features_BND.float().reshape(batch, frames, -1, dim).mean(2)


class AttentionPooling(nn.Module):
    """AIM's attention pooling classifier, the one that the paper uses (§3.5): softmax(q k / sqrt(D/H)) v, then linear.

    Keys and values are linear in normalised features and have no bias; one learned query, no projections of query or
    output. Since there is one query, its product with the keys' matrix is taken first, and the values' matrix is
    applied after the sum over positions: the same function at 2 D H instead of 2 D^2 multiplications a position.
    Normalisation is with fixed statistics of the training set: the features are frozen.
    """

    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        classes: int,
        query_std: float = 0.02,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim, generator=generator) * query_std)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.linear = nn.Linear(dim, classes, bias=False)
        for layer in (self.k, self.v, self.linear):
            bound = 1 / math.sqrt(dim)  # nn.Linear's own, drawn from the given generator
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("variance", torch.ones(dim))

    def forward(self, features_BND: Tensor) -> Tensor:
        """[B, N, D] float32 -> logits [B, C]."""
        dim, heads = features_BND.shape[-1], self.heads
        scale = torch.rsqrt(self.variance + EPS)
        query = self.cls_token.reshape(heads, dim // heads, 1) / math.sqrt(dim // heads)
        query_HD = (self.k.weight.reshape(heads, dim // heads, dim) * query).sum(1) * scale
        attention_BHN = (query_HD @ features_BND.transpose(1, 2)).softmax(-1)  # the mean adds the same to every n
        pooled_BHD = (attention_BHN @ features_BND - self.mean) * scale
        values = self.v.weight.reshape(heads, dim // heads, dim)
        return self.linear(torch.einsum("bhd,hed->bhe", pooled_BHD, values).flatten(1))
