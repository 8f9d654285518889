"""GPT-2's decoder as in Table 6: LayerNorm, biases, GELU, and fixed sine and cosine positions added to the ids' rows.

The paper prints 280M: 16 layers of width 1,024 with an MLP of 6 widths and a tied head have 277M (`gpt2`), 21 layers
of the usual 4 widths, untied, would have 281M. As many layers as Llama's `large` keep "layer 8" comparable.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toto.config import ModelConfig
from toto.errors import UsageError
from toto.train.models.attention import Attention, KeysValues
from toto.train.models.language_model import LanguageModel, Memory
from toto.train.models.products import Linear

LONGEST_WAVE = 10_000.0  # positions, / 2 pi ("Attention Is All You Need", 3.5)


class MLP(nn.Module):
    """down(gelu(up x)), with biases; GELU by tanh, as GPT-2 has it."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = Linear(dim, hidden)
        self.down = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x), approximate="tanh"))


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normalised state and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.dim, config.norm_eps)
        self.attention = Attention(config.dim, config.heads, bias=True)
        self.mlp_norm = nn.LayerNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config.dim, config.mlp_hidden)

    def forward(self, x_BTD: Tensor, positions: None, memory: KeysValues | None = None) -> Tensor:
        x = x_BTD + self.attention(self.attention_norm(x_BTD), None, memory)
        return x + self.mlp(self.mlp_norm(x))


class GPT2(LanguageModel):
    """GPT-2 with fixed positions; UsageError for heads that do not divide the width, or an odd width."""

    residual = ("attention.out.weight", "mlp.down.weight")

    def __init__(
        self, config: ModelConfig, used_ids: int, seed: int | None = 0, checkpoint_blocks: bool = False
    ) -> None:
        if config.dim % config.heads or config.dim % 2:
            raise UsageError(f"models.{config.name}: dim {config.dim} must be even, and a multiple of {config.heads}")
        super().__init__(config, used_ids, seed, checkpoint_blocks)
        self._waves = torch.empty(0, 0)

    def make_block(self) -> Block:
        """A block of GPT-2."""
        return Block(self.config)

    def make_norm(self) -> nn.LayerNorm:
        """A LayerNorm."""
        return nn.LayerNorm(self.config.dim, self.config.norm_eps)

    def memories(self, rows: int, length: int) -> list[Memory]:
        """Keys and values of every block."""
        c = self.config
        return [KeysValues(rows, c.heads, length, c.dim // c.heads, self.table.weight) for _ in self.blocks]

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """Rows of the table plus the waves of their positions, which are as large as the rows are at the start."""
        x = super().embed(ids, start)
        end = start + ids.shape[-1]
        if len(self._waves) < end or self._waves.device != x.device:
            with torch.inference_mode(False):
                longest = max(end, 2 * len(self._waves))  # decoding asks for one more each time
                self._waves = waves(longest, self.config.dim).to(x.device)
        return x + (self.config.init_std * math.sqrt(2) * self._waves[start:end]).to(x.dtype)


def waves(length: int, dim: int) -> Tensor:
    """fp32 [length, dim]: sines of each position in the first half of the channels, cosines in the second."""
    with torch.inference_mode(False):
        rates = LONGEST_WAVE ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()
