"""A model in the names and shapes of transformers: config.json and tensors, for each architecture.

    Llama ─▶ LlamaForCausalLM      GPT2 ─▶ GPT2LMHeadModel      Mamba ─▶ MambaForCausalLM

The table is cut to the used ids; the head is the table (tie_word_embeddings), so it is not written a second time.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toto.shards.ids import END, PAD, VIDEO_START
from toto.train.models import LanguageModel
from toto.train.models.mamba import step_rank

EDGES = 2  # start and end id around the codes of a context
OF_GPT2 = {
    **{"attention_norm": "ln_1", "attention.qkv": "attn.c_attn", "attention.out": "attn.c_proj"},
    **{"mlp_norm": "ln_2", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"},
}


@dataclass(frozen=True)
class Layout:
    """What transformers needs of a model."""

    config: dict[str, Any]  # config.json, without the dtype
    tensors: dict[str, Tensor]  # fp32


def layout_of(model: LanguageModel, context: int) -> Layout:
    """The model for sequences of `context` codes, with a start and an end id around them."""
    config, tensors = {"llama": _llama, "gpt2": _gpt2, "mamba": _mamba}[model.config.arch](model, context + EDGES)
    ids = {"bos_token_id": VIDEO_START, "eos_token_id": END, "pad_token_id": PAD}
    shared = {"vocab_size": model.used_ids, "tie_word_embeddings": True, "use_cache": True, **ids}
    return Layout({**config, **shared}, {name: t.detach().float().contiguous() for name, t in tensors.items()})


def _llama(model: LanguageModel, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    c = model.config
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": c.dim,
        "intermediate_size": c.mlp_hidden,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.heads,
        "head_dim": c.dim // c.heads,
        "hidden_act": "silu",
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,  # up to transformers 4
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},  # since 5
        "max_position_embeddings": length,
        "attention_bias": False,
        "mlp_bias": False,
    }
    tensors = {"model.embed_tokens.weight": model.table.weight[: model.used_ids]}
    tensors["model.norm.weight"] = model.get_parameter("norm.weight")
    for i in range(c.layers):
        own = model.get_submodule(f"blocks.{i}")
        q, k, v = own.get_parameter("attention.qkv.weight").chunk(3)
        gate, up = own.get_parameter("mlp.gate_up.weight").chunk(2)
        named = {
            **{"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v},
            "self_attn.o_proj": own.get_parameter("attention.out.weight"),
            **{"mlp.gate_proj": gate, "mlp.up_proj": up, "mlp.down_proj": own.get_parameter("mlp.down.weight")},
            "input_layernorm": own.get_parameter("attention_norm.weight"),
            "post_attention_layernorm": own.get_parameter("mlp_norm.weight"),
        }
        tensors |= {f"model.layers.{i}.{name}.weight": weight for name, weight in named.items()}
    return config, tensors


def _gpt2(model: LanguageModel, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fixed positions become the rows of the table of learned ones; matrices stand the other way round."""
    c = model.config
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{"n_embd": c.dim, "n_layer": c.layers, "n_head": c.heads, "n_inner": c.mlp_hidden, "n_positions": length},
        "activation_function": "gelu_new",
        "layer_norm_epsilon": c.norm_eps,
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.0),
    }
    ids = torch.zeros(1, length, dtype=torch.int64, device=model.table.weight.device)
    tensors = {
        "transformer.wte.weight": model.table.weight[: model.used_ids],
        "transformer.wpe.weight": (model.embed(ids) - model.table(ids))[0],
        "transformer.ln_f.weight": model.get_parameter("norm.weight"),
        "transformer.ln_f.bias": model.get_parameter("norm.bias"),
    }
    for i in range(c.layers):
        for name, weight in model.get_submodule(f"blocks.{i}").named_parameters():
            place, _, last = name.rpartition(".")
            tensors[f"transformer.h.{i}.{OF_GPT2[place]}.{last}"] = weight.T if weight.ndim == 2 else weight
    return config, tensors


def _mamba(model: LanguageModel, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    c = model.config
    config = {
        "architectures": ["MambaForCausalLM"],
        "model_type": "mamba",
        **{"hidden_size": c.dim, "num_hidden_layers": c.layers, "state_size": c.states, "expand": c.expand},
        **{"conv_kernel": c.conv_window, "time_step_rank": step_rank(c), "layer_norm_epsilon": c.norm_eps},
        **{"intermediate_size": c.expand * c.dim, "hidden_act": "silu", "use_bias": False, "use_conv_bias": True},
    }
    tensors = {"backbone.embeddings.weight": model.table.weight[: model.used_ids]}
    tensors["backbone.norm_f.weight"] = model.get_parameter("norm.weight")
    for i in range(c.layers):
        for name, weight in model.get_submodule(f"blocks.{i}").named_parameters():
            tensors[f"backbone.layers.{i}.{name}"] = weight
    return config, tensors
