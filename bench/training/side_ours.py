"""Ours, as train/loop.py uses it: losses of all positions, their sum over the number of them."""

import torch
from torch import Tensor, nn

from toto.config import ModelConfig
from toto.train.models import make_model

NAME = "ours"


def make(config: ModelConfig, used_ids: int, context: int, compiled: bool) -> nn.Module:
    """The model of that size."""
    model = make_model(config, used_ids)
    if compiled:
        model.compile_blocks()
    return model


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean over all positions."""
    losses: torch.Tensor = model(ids[:, :-1], ids[:, 1:])
    return losses.sum() * (1 / losses.numel())
