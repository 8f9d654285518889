"""Mamba as in Table 6: a state space model, no attention and no positions.

    x ─norm─▶ in ─▶ u, gate ─ u: causal convolution over 4 positions, silu ─▶ selective scan ─ * silu(gate) ─ out ─▶ + x

The paper prints 290M: 42 layers of width 1,024 with a tied head have 288M. Suffixes: B sequences, T positions, D width,
I inner channels (`expand` widths), N states of a channel. Names follow the authors' code (state-spaces/mamba); its CUDA
scan is used on a GPU when `mamba_ssm` can be imported, scan.py otherwise.
"""

import math
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toto.config import ModelConfig
from toto.train.models.language_model import LanguageModel, Matrix, Memory
from toto.train.models.llama import RMSNorm
from toto.train.models.products import Linear, linear
from toto.train.models.scan import selective_scan

LEAST_STEP, MOST_STEP = 0.001, 0.1  # of the scan, at the start: drawn evenly in the logarithm (Mamba, 3.6)
WIDTHS_PER_STEP_RANK = 16


class State:
    """What one block remembers (language_model.Memory): inputs of the convolution, and the scan's state."""

    def __init__(self, rows: int, inner: int, window: int, states: int, device: torch.device) -> None:
        self.inputs_BTI = torch.zeros(rows, window - 1, inner, device=device)
        self.scan_BIN = torch.zeros(rows, inner, states, device=device)

    def mark(self) -> tuple[Tensor, Tensor]:
        """Both, as they are now: they are replaced by every position, never changed."""
        return self.inputs_BTI, self.scan_BIN

    def rewind(self, mark: tuple[Tensor, Tensor]) -> None:
        """Both, as they were."""
        self.inputs_BTI, self.scan_BIN = mark


class Mixer(nn.Module):
    """The selective state space layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inner, rank = config.expand * config.dim, step_rank(config)
        self.window, self.states = config.conv_window, config.states
        self.in_proj = Linear(config.dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, self.window, groups=inner)
        self.x_proj = Linear(inner, rank + 2 * self.states, bias=False)
        self.dt_proj = Linear(rank, inner)
        self.A_log = nn.Parameter(torch.empty(inner, self.states))
        self.D = nn.Parameter(torch.empty(inner))
        self.out_proj = Linear(inner, config.dim, bias=False)

    def forward(self, x_BTD: Tensor, memory: State | None = None) -> Tensor:
        u, gate = self.in_proj(x_BTD).chunk(2, dim=-1)
        scan = selective_scan if memory is not None else _scan_from_nothing(u.device)
        memory = memory or State(len(u), u.shape[-1], self.window, self.states, u.device)
        read = torch.cat([memory.inputs_BTI.to(u.dtype), u], dim=1)
        memory.inputs_BTI = read[:, read.shape[1] - self.window + 1 :].clone()  # a view would keep all that was read
        u = F.silu(self.conv1d(read.transpose(1, 2))).transpose(1, 2)
        step, B, C = self.x_proj(u).split([self.dt_proj.in_features, self.states, self.states], dim=-1)
        delta = F.softplus(self.widened(step).float() + self.dt_proj.bias.float())
        A = -torch.exp(self.A_log.float())
        y, memory.scan_BIN = scan(u, delta, A, B, C, self.D.float(), memory.scan_BIN)
        return self.out_proj(y.to(u.dtype) * F.silu(gate))

    def widened(self, step: Tensor) -> Tensor:
        """Steps of all channels [..., I], without the bias, which is needed in fp32."""
        return linear(step, self.dt_proj.weight)


class Block(nn.Module):
    """One layer: the mixer on the normalised state, added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.mixer = Mixer(config)

    def forward(self, x_BTD: Tensor, positions: None, memory: State | None = None) -> Tensor:
        return x_BTD + self.mixer(self.norm(x_BTD), memory)


class Mamba(LanguageModel):
    """Mamba-1 with a tied head."""

    in_full = ("A_log", "dt_proj.bias")  # the scan's rates: small errors of theirs add up over positions
    residual = ("mixer.out_proj.weight",)

    def make_block(self) -> Block:
        """A block of Mamba."""
        return Block(self.config)

    def make_norm(self) -> RMSNorm:
        """An RMSNorm."""
        return RMSNorm(self.config.dim, self.config.norm_eps)

    def memories(self, rows: int, length: int) -> list[Memory]:
        """The states of every block; they do not grow with the length."""
        c, device = self.config, self.table.weight.device
        return [State(rows, c.expand * c.dim, c.conv_window, c.states, device) for _ in self.blocks]

    def matrices(self) -> Iterator[Matrix]:
        """All but `dt_proj`, which multiplies without its bias."""
        yield from (matrix for matrix in super().matrices() if matrix.bias is None)
        mixers = (module for module in self.modules() if isinstance(module, Mixer))
        yield from (Matrix(mixer, "widened", mixer.dt_proj.weight, None) for mixer in mixers)

    def compile_blocks(self) -> None:
        """Nothing: the scan is a loop over chunks, which a compiler would unroll."""

    def decays(self, name: str) -> bool:
        """As everywhere, but for the logarithms of A: decay would pull them to 0, A to -1."""
        return super().decays(name) and not name.endswith("A_log")

    def draw_other(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        """A = -1 … -N in every channel; steps between 0.001 and 0.1; D = 1 (Mamba, section 3.6)."""
        if name.endswith("A_log"):
            weight.copy_(torch.arange(1, weight.shape[1] + 1).float().log().expand_as(weight))
        elif name.endswith("dt_proj.bias"):
            low, high = math.log(LEAST_STEP), math.log(MOST_STEP)
            steps = torch.exp(low + (high - low) * torch.rand(weight.shape, generator=generator))
            weight.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus
        elif name.endswith("conv1d.weight"):
            bound = weight[0].numel() ** -0.5  # torch's own for convolutions
            weight.uniform_(-bound, bound, generator=generator)
        else:
            super().draw_other(name, weight, generator)


def step_rank(config: ModelConfig) -> int:
    """Channels that the steps of the scan are made from: a sixteenth of the width, rounded up."""
    return -(-config.dim // WIDTHS_PER_STEP_RANK)


def _scan_from_nothing(device: torch.device) -> Any:
    """The scan for sequences that begin here: the authors' kernel on a GPU where it is installed."""
    fused = _fused_scan() if device.type == "cuda" else None
    return fused or selective_scan


@cache
def _fused_scan() -> Any:
    """scan.selective_scan by the authors' kernel, which starts from an empty state; None where it is not installed."""
    try:
        kernel = import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except ImportError:
        return None

    def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, state: Tensor) -> Any:
        x, delta, B, C = (t.transpose(1, 2).contiguous() for t in (x, delta.to(x.dtype), B, C))
        y, last = kernel(x, delta, A, B, C, D, return_last_state=True)
        return y.transpose(1, 2), last

    return scan
