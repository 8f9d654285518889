"""What every architecture of Table 6 shares: one table for ids and head, blocks, losses in chunks, states of layers.

    ids int64 [B, T] ─embed─▶ x [B, T, D] ─ L blocks ─▶ norm ─table─▶ logits

Suffixes of names: B sequences, T positions, D width, H heads. Layer l = 0 is the embedding, l the state after block l.
The table has `model_vocab` rows, a multiple of 128; rows past `used_ids` are zero and never become logits.
"""

from abc import abstractmethod
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from toto.config import ModelConfig
from toto.shards.ids import CODE_OFFSET, model_vocab
from toto.train.models.head_loss import head_losses
from toto.train.models.products import as_computed, linear

CHUNK_TOKENS = 2048  # positions whose logits exist at once: 8,320 ids in fp32 are 68 MB


class Memory(Protocol):
    """What one block keeps of the positions that it has read, while sequences are decoded."""

    def mark(self) -> Any:
        """What `rewind` needs to come back to this position."""
        ...

    def rewind(self, mark: Any) -> None:
        """Forgets what was read after the mark."""
        ...


class Matrix(NamedTuple):
    """A matrix, and whose method multiplies by it: x -> x W^T + b. Decoding puts others in its place."""

    owner: nn.Module
    method: str
    weight: Tensor
    bias: Tensor | None


class LanguageModel(nn.Module):
    """A language model over visual ids; its weights follow from (config, used_ids, seed) alone.

    `used_ids` = codes + 4. With `seed=None` the weights are left undefined, for a checkpoint to fill. With
    `checkpoint_blocks` a block's activations are computed again in the backward pass instead of kept.
    """

    in_full: tuple[str, ...] = ()  # ends of the names of weights that are needed in fp32, whatever the others have
    residual: tuple[str, ...]  # ends of the names of matrices whose product is added to the state

    def __init__(
        self, config: ModelConfig, used_ids: int, seed: int | None = 0, checkpoint_blocks: bool = False
    ) -> None:
        super().__init__()
        self.config, self.used_ids, self.checkpoint_blocks = config, used_ids, checkpoint_blocks
        with torch.device("meta"):  # leaves torch's global generator alone
            self.table = nn.Embedding(model_vocab(used_ids - CODE_OFFSET), config.dim)
            self.blocks = nn.ModuleList(self.make_block() for _ in range(config.layers))
            self.norm = self.make_norm()
        self.to_empty(device="cpu")
        if seed is not None:
            self._draw(torch.Generator().manual_seed(seed))

    @abstractmethod
    def make_block(self) -> nn.Module:
        """A layer without weights: (x [B, T, D], `positions`, Memory or None) -> x."""

    @abstractmethod
    def make_norm(self) -> nn.Module:
        """The norm before the head."""

    @abstractmethod
    def memories(self, rows: int, length: int) -> list[Memory]:
        """What the blocks keep while `rows` sequences of at most `length` positions are decoded, one for each."""

    @property
    def gathers_half(self) -> bool:
        """Whether weights that are cut among processes may be gathered in bf16, as they are used."""
        return not self.in_full

    def halve(self) -> None:
        """Casts the weights to bf16, but for those of `in_full`."""
        full = {name: weight.data for name, weight in self.named_parameters() if name.endswith(self.in_full)}
        self.bfloat16()
        for name, weight in full.items():
            self.get_parameter(name).data = weight

    def positions(self, start: int, end: int, device: torch.device) -> Tensor | None:
        """What blocks are told of positions start … end - 1; None where they are told nothing."""
        return None

    def forward(self, ids_BT: Tensor, targets_BT: Tensor | None = None, chunk_tokens: int = CHUNK_TOKENS) -> Tensor:
        """Logits fp32 [B, T, used_ids]; with targets int64 [B, T], each position's loss in nats, fp32 [B, T].

        A target of -100 costs 0. Losses are computed for `chunk_tokens` positions at a time, so that the logits of all
        positions never exist at once.
        """
        x_BTD = self.embed(ids_BT)
        for block in self.blocks:
            x_BTD = self._run(block, x_BTD)
        x_BTD = self.norm(x_BTD)
        if targets_BT is None:
            return self.logits(x_BTD)
        x_ND = as_computed(x_BTD).flatten(0, 1)
        return head_losses(x_ND, self.table.weight, targets_BT, self.used_ids, chunk_tokens)

    def features(self, ids_BT: Tensor, layers: Collection[int]) -> dict[int, Tensor]:
        """States [B, T, D] after the asked layers, before the final norm; blocks past the highest do not run."""
        wrong = sorted(layer for layer in layers if not 0 <= layer <= self.config.layers)
        if wrong or not layers:
            raise ValueError(f"layers {wrong or 'none'} asked for; a {self.config.name} has 0 to {self.config.layers}")
        found = {layer: x for layer, x in enumerate(self._states(ids_BT, max(layers))) if layer in layers}
        return {layer: found[layer] for layer in layers}

    def embed(self, ids: Tensor, start: int = 0) -> Tensor:
        """States of layer 0, [B, T, D], of ids at positions start, start + 1, …; in autocast's dtype where that is on,
        so that all blocks add up in it."""
        return as_computed(self.table(ids))

    def logits(self, x: Tensor) -> Tensor:
        """Normalised states [..., D] -> fp32 [..., used_ids]."""
        return self.head(x)[..., : self.used_ids].float()

    def head(self, x: Tensor) -> Tensor:
        """Normalised states [..., D] times the table."""
        return linear(x, self.table.weight)

    def matrices(self) -> Iterator[Matrix]:
        """All matrices that states are multiplied by."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                yield Matrix(module, "forward", module.weight, module.bias)
        yield Matrix(self, "head", self.table.weight[: self.used_ids], None)

    def compile_blocks(self) -> None:
        """Compiles every block for one shape; names of weights stay as they are."""
        for block in self.blocks:
            block.compile(dynamic=False)

    def decays(self, name: str) -> bool:
        """Whether weight decay acts on a parameter: on matrices, not on gains and biases."""
        return self.get_parameter(name).ndim >= 2

    def draw_other(self, name: str, weight: Tensor, generator: torch.Generator) -> None:
        """Fills a parameter that is no matrix: gains are 1, biases 0."""
        weight.fill_(0.0 if name.endswith("bias") else 1.0)

    def _states(self, ids_BT: Tensor, last: int) -> Iterator[Tensor]:
        x_BTD = self.embed(ids_BT)
        yield x_BTD
        for block in self.blocks[:last]:
            x_BTD = self._run(block, x_BTD)
            yield x_BTD

    def _run(self, block: Any, x_BTD: Tensor) -> Tensor:
        told = self.positions(0, x_BTD.shape[1], x_BTD.device)
        if self.checkpoint_blocks and torch.is_grad_enabled():
            return checkpoint(block, x_BTD, told, use_reentrant=False, preserve_rng_state=False)
        return block(x_BTD, told)

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        """N(0, init_std); what is added to the residual state / sqrt(2L), so that its size does not grow with depth."""
        residual_std = self.config.init_std / (2 * self.config.layers) ** 0.5
        for name, weight in self.named_parameters():
            if weight.ndim == 2 and self.decays(name):
                std = residual_std if name.endswith(self.residual) else self.config.init_std
                weight.normal_(0.0, std, generator=generator)
            else:
                self.draw_other(name, weight, generator)
        if self.config.table_mean_std:
            self.table.weight += self.config.table_mean_std * torch.randn(self.config.dim, generator=generator)
        self.table.weight[self.used_ids :] = 0.0
