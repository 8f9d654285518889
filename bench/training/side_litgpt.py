"""litgpt's GPT as its pretrain.py uses it: the loss in chunks of 128, the whole model compiled where that is asked for.

pip install --no-deps --target PEERS litgpt lightning pytorch-lightning torchmetrics lightning-utilities jsonargparse
"""

import torch
from litgpt.model import GPT, Config
from litgpt.utils import chunked_cross_entropy
from torch import Tensor, nn

from toto.config import ModelConfig

NAME = "litgpt"


def make(config: ModelConfig, used_ids: int, context: int, compiled: bool) -> nn.Module:
    """The same shape, the table tied (`train.tie_embeddings`) and padded to as many rows as ours."""
    settings = Config(
        name=config.name,
        block_size=context,
        vocab_size=used_ids,
        padding_multiple=128,
        n_layer=config.layers,
        n_head=config.heads,
        n_embd=config.dim,
        intermediate_size=config.mlp_hidden,
        rotary_percentage=1.0,
        rope_base=int(config.rope_theta),
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=config.norm_eps,
        mlp_class_name="LLaMAMLP",
    )
    model = GPT(settings)
    model.apply(model._init_weights)
    model.transformer.wte.weight = model.lm_head.weight
    return torch.compile(model) if compiled else model


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean over all positions."""
    return chunked_cross_entropy(model(ids[:, :-1]), ids[:, 1:].contiguous())
