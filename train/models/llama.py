"""The decoder of the paper (Table 1): pre-RMSNorm, SwiGLU, rotary positions.

Suffixes of names: B sequences, T positions, D width, H heads.
"""

import torch
from torch import Tensor, nn

from toto.config import ModelConfig
from toto.errors import UsageError
from toto.train.models.attention import Attention, KeysValues
from toto.train.models.language_model import LanguageModel, Memory
from toto.train.models.lean import rms_norm, swiglu_down
from toto.train.models.products import Linear
from toto.train.models.rope import rotation


class RMSNorm(nn.Module):
    """x / rms(x) times a learned gain, in the dtype of x (sums in fp32)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), gate and up in one matrix."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Linear(dim, 2 * hidden, bias=False)
        self.down = Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return swiglu_down(self.gate_up(x), self.down)


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normalised state and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config.dim, config.heads)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config.dim, config.mlp_hidden)

    def forward(self, x_BTD: Tensor, rotation: Tensor, memory: KeysValues | None = None) -> Tensor:
        x = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, memory)
        return x + self.mlp(self.mlp_norm(x))


class Llama(LanguageModel):
    """The paper's model; UsageError for heads that do not divide the width into even parts."""

    residual = ("attention.out.weight", "mlp.down.weight")

    def __init__(
        self, config: ModelConfig, used_ids: int, seed: int | None = 0, checkpoint_blocks: bool = False
    ) -> None:
        if config.dim % config.heads or config.dim // config.heads % 2:
            raise UsageError(f"models.{config.name}: dim {config.dim} must be an even multiple of heads {config.heads}")
        super().__init__(config, used_ids, seed, checkpoint_blocks)
        self._rotation = torch.empty(2, 0, 0)

    def make_block(self) -> Block:
        """A block of Table 1."""
        return Block(self.config)

    def make_norm(self) -> RMSNorm:
        """An RMSNorm."""
        return RMSNorm(self.config.dim, self.config.norm_eps)

    def memories(self, rows: int, length: int) -> list[Memory]:
        """Keys and values of every block."""
        c = self.config
        return [KeysValues(rows, c.heads, length, c.dim // c.heads, self.table.weight) for _ in self.blocks]

    def positions(self, start: int, end: int, device: torch.device) -> Tensor:
        """fp32 [2, end - start, head_dim / 2] on the device: cosines and sines of these positions."""
        if self._rotation.shape[1] < end or self._rotation.device != device:
            longest = max(end, 2 * self._rotation.shape[1])  # decoding asks for one more each time
            made = rotation(longest, self.config.dim // self.config.heads, self.config.rope_theta)
            with torch.inference_mode(False):
                self._rotation = made.to(device)
        return self._rotation[:, start:end]
