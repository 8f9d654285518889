"""Llama of transformers: SDPA, no cache, the library's own loss; compiled whole where that is asked for."""

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from toto.config import ModelConfig

NAME = "transformers"


def make(config: ModelConfig, used_ids: int, context: int, compiled: bool) -> nn.Module:
    """The same shape, the table tied."""
    settings = LlamaConfig(
        vocab_size=used_ids,
        hidden_size=config.dim,
        intermediate_size=config.mlp_hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=context,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(settings).train()
    return torch.compile(model) if compiled else model


def loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean over all positions; the targets are shifted already, so that each is predicted once as in ours."""
    return model(input_ids=ids[:, :-1].contiguous(), shift_labels=ids[:, 1:].contiguous(), labels=ids[:, 1:]).loss
