"""The decoder of the paper (Table 1): pre-RMSNorm, SwiGLU, rotary positions, one table for ids and head.

    ids int64 [B, T] ─table─▶ x [B, T, D] ─ L blocks: x += attention(norm x); x += mlp(norm x) ─▶ norm ─table─▶ logits

Suffixes of names: B sequences, T positions, D width, H heads. Layer l = 0 is the embedding, l the state after block l.
The table has `model_vocab` rows, a multiple of 128; rows past `used_ids` are zero and never become logits.
"""

from collections.abc import Collection, Iterator
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from toto.config import ModelConfig
from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET, model_vocab
from toto.train.models.rope import rotate, rotation

IGNORED = -100  # a target that costs nothing
CHUNK_TOKENS = 8192  # positions whose logits exist at once: 8,320 ids in fp32 are 273 MB


class Memory(Protocol):
    """Keys and values of earlier positions of one block (see cache.py)."""

    def extend(self, k_BHTD: Tensor, v_BHTD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keeps new keys and values; returns all so far, and which of them each new position sees, bool [T, S].

        None says: all so far are new, or there is one new position, which sees all.
        """
        ...


class RMSNorm(nn.Module):
    """x / rms(x) times a learned gain, in the dtype of x (sums in fp32)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """Causal self-attention with one matrix for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x_BTD: Tensor, rotation: Tensor, memory: Memory | None = None) -> Tensor:
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        q, k, mask = rotate(q, rotation), rotate(k, rotation), None
        if memory is not None:
            k, v, mask = memory.extend(k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None and T > 1)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate x) * up x), gate and up in one matrix."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    """One layer: attention, then MLP, each on the normalised state and added to it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config.dim, config.heads)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config.dim, config.mlp_hidden)

    def forward(self, x_BTD: Tensor, rotation: Tensor, memory: Memory | None = None) -> Tensor:
        x = x_BTD + self.attention(self.attention_norm(x_BTD), rotation, memory)
        return x + self.mlp(self.mlp_norm(x))


class Llama(nn.Module):
    """A language model over visual ids; its weights follow from (config, used_ids, seed) alone.

    `used_ids` = codes + 4. With `seed=None` the weights are left undefined, for a checkpoint to fill. With
    `checkpoint_blocks` a block's activations are computed again in the backward pass instead of kept.
    """

    def __init__(
        self, config: ModelConfig, used_ids: int, seed: int | None = 0, checkpoint_blocks: bool = False
    ) -> None:
        super().__init__()
        if config.dim % config.heads or config.dim // config.heads % 2:
            raise UsageError(f"models.{config.name}: dim {config.dim} must be an even multiple of heads {config.heads}")
        self.config, self.used_ids, self.checkpoint_blocks = config, used_ids, checkpoint_blocks
        with torch.device("meta"):  # leaves torch's global generator alone
            self.table = nn.Embedding(model_vocab(used_ids - CODE_OFFSET), config.dim)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
            self.norm = RMSNorm(config.dim, config.norm_eps)
        self.to_empty(device="cpu")
        self._rotation = torch.empty(2, 0, 0)
        if seed is not None:
            self._draw(torch.Generator().manual_seed(seed))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor | None = None, chunk_tokens: int = CHUNK_TOKENS) -> Tensor:
        """Logits fp32 [B, T, used_ids]; with targets int64 [B, T], each position's loss in nats, fp32 [B, T].

        A target of -100 costs 0. Losses are computed for `chunk_tokens` positions at a time, and again in the
        backward pass, so that the logits of all positions never exist at once.
        """
        x_BTD = self.embed(ids_BT)
        for block in self.blocks:
            x_BTD = self._run(block, x_BTD)
        x_BTD = self.norm(x_BTD)
        if targets_BT is None:
            return self.logits(x_BTD)
        x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
        chunks = zip(x_ND.split(chunk_tokens), targets_N.split(chunk_tokens), strict=True)
        losses = [checkpoint(self._losses, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        return torch.cat(losses).view(targets_BT.shape)

    def features(self, ids_BT: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """States [B, T, D] after the asked layers, before the final norm; blocks past the highest do not run."""
        wrong = sorted(layer for layer in layers if not 0 <= layer <= self.config.layers)
        if wrong or not layers:
            raise ValueError(f"layers {wrong or 'none'} asked for; a {self.config.name} has 0 to {self.config.layers}")
        found = {layer: x for layer, x in enumerate(self._states(ids_BT, max(layers))) if layer in layers}
        return {layer: found[layer] for layer in layers}

    def embed(self, ids: Tensor) -> Tensor:
        """States of layer 0, [..., D]; in autocast's dtype where that is on, so that all blocks add up in it."""
        x = self.table(ids)
        device = x.device.type
        return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x

    def logits(self, x: Tensor) -> Tensor:
        """Normalised states [..., D] -> fp32 [..., used_ids]."""
        return F.linear(x, self.table.weight)[..., : self.used_ids].float()

    def rotation(self, length: int, device: torch.device) -> Tensor:
        """fp32 [2, length, head_dim / 2] on the device: cosines and sines of positions 0 … length - 1."""
        if self._rotation.shape[1] < length or self._rotation.device != device:
            made = rotation(length, self.config.dim // self.config.heads, self.config.rope_theta)
            with torch.inference_mode(False):
                self._rotation = made.to(device)
        return self._rotation[:, :length]

    def compile_blocks(self) -> None:
        """Compiles every block for one shape; names of weights stay as they are."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def _states(self, ids_BT: Tensor, last: int) -> Iterator[Tensor]:
        x_BTD = self.embed(ids_BT)
        yield x_BTD
        for block in self.blocks[:last]:
            x_BTD = self._run(block, x_BTD)
            yield x_BTD

    def _run(self, block: Any, x_BTD: Tensor) -> Tensor:
        turns = self.rotation(x_BTD.shape[1], x_BTD.device)
        if self.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(block, x_BTD, turns, use_reentrant=False, preserve_rng_state=False)
        return block(x_BTD, turns)

    def _losses(self, x_ND: Tensor, targets_N: Tensor) -> Tensor:
        return F.cross_entropy(self.logits(x_ND), targets_N, ignore_index=IGNORED, reduction="none")

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        """N(0, init_std); what is added to the residual state / sqrt(2L), so that its size does not grow with depth."""
        residual_std = self.config.init_std / (2 * self.config.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                weight.fill_(1.0)
            else:
                is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
                weight.normal_(0.0, residual_std if is_residual else self.config.init_std, generator=generator)
        if self.config.table_mean_std:
            self.table.weight += self.config.table_mean_std * torch.randn(self.config.dim, generator=generator)
        self.table.weight[self.used_ids :] = 0.0
