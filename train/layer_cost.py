"""The layers of each architecture in numbers: parameters, multiply-adds of a token, what autograd keeps of it."""

from dataclasses import dataclass

from toto.config import ModelConfig
from toto.train.models.mamba import step_rank
from toto.train.models.scan import CHUNK


@dataclass(frozen=True)
class LayerCost:
    """All blocks and the last norm of a model, for one token."""

    parameters: dict[str, int]  # by group, without the table
    macs: int  # multiply-adds that do not depend on the length of the sequence
    square_macs: int  # of attention, for each position of the sequence, when every position sees all
    kept: int  # values that autograd keeps of one block, in the compute dtype, without compilation
    kept_at_end: int  # values that it keeps around the last norm, and the gradient of what the head reads
    state_values: int  # that decoding keeps for each position
    fixed_state: int = 0  # fp32 values that it keeps whatever the length


def layer_cost(config: ModelConfig) -> LayerCost:
    """The cost of the layers of a model."""
    return {"llama": _llama, "gpt2": _gpt2, "mamba": _mamba}[config.arch](config)


def _llama(c: ModelConfig) -> LayerCost:
    attention, mlp = c.layers * 4 * c.dim**2, c.layers * 3 * c.dim * c.mlp_hidden
    return LayerCost(
        parameters={"attention": attention, "mlp": mlp, "norms": (2 * c.layers + 1) * c.dim},
        macs=attention + mlp,
        square_macs=2 * c.layers * c.dim,
        # both norms 2 widths each, queries, keys and values 3, attention's result twice; gate, up (models/lean.py).
        # tests/test_train_cost.py counts them. Compiled blocks keep no more: an upper bound.
        kept=9 * c.dim + 2 * c.mlp_hidden,
        kept_at_end=3 * c.dim,
        state_values=2 * c.layers * c.dim,
    )


def _gpt2(c: ModelConfig) -> LayerCost:
    attention, mlp = c.layers * 4 * c.dim**2, c.layers * 2 * c.dim * c.mlp_hidden
    return LayerCost(
        parameters={
            "attention": attention + c.layers * 4 * c.dim,
            "mlp": mlp + c.layers * (c.mlp_hidden + c.dim),
            "norms": (2 * c.layers + 1) * 2 * c.dim,
        },
        macs=attention + mlp,
        square_macs=2 * c.layers * c.dim,
        # norms 2 widths each, queries to values and their joint matrix, result; up, gelu(up)
        kept=8 * c.dim + 2 * c.mlp_hidden,
        kept_at_end=3 * c.dim,
        state_values=2 * c.layers * c.dim,
    )


def _mamba(c: ModelConfig) -> LayerCost:
    inner, rank = c.expand * c.dim, step_rank(c)
    matrices = 3 * c.dim * inner + inner * (rank + 2 * c.states) + rank * inner
    small = inner * (c.conv_window + 1) + inner + inner * c.states + inner  # convolution, bias of the steps, A, D
    scan = inner * c.conv_window + 3 * inner * c.states  # the scan: decay, input and output of each state
    return LayerCost(
        parameters={"mixer": c.layers * (matrices + small), "norms": (c.layers + 1) * c.dim},
        macs=c.layers * (matrices + scan),
        square_macs=0,
        # norm 2 widths; in the inner channels: in, convolution, silu, steps, gate, output, and copies of them in fp32;
        # the state before each chunk of the scan
        kept=2 * c.dim + 11 * inner + inner * c.states // CHUNK + rank + 2 * c.states,
        kept_at_end=3 * c.dim,
        state_values=0,
        fixed_state=c.layers * inner * (c.states + c.conv_window - 1),
    )
