"""What a model costs, from its numbers alone: parameters, multiply-adds, FLOPs, bytes. No tensor is built.

Parameters are counted over used rows of the table, as the paper's are; memory over the rows that are allocated.
A multiply-add (MAC) is two FLOPs; a training step costs three forward passes (PaLM, appendix B).
"""

from dataclasses import dataclass

from toto.config import ModelConfig, RecipeConfig
from toto.lazy import cached_property
from toto.shards.ids import CODE_OFFSET, model_vocab
from toto.train.layer_cost import LayerCost, layer_cost
from toto.train.models.language_model import CHUNK_TOKENS

FLOPS_PER_MAC = 2
TRAINING_PASSES = 3  # forward, and backward to the inputs and to the weights
FP32, BF16 = 4, 2  # bytes
ADAM_MOMENTS = 2
LOGIT_BYTES = 8  # of one logit in a chunk: in the compute dtype, in fp32, its gradient in the compute dtype


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while a micro-batch is trained without sharding."""

    weights: int  # fp32
    gradients: int  # fp32
    moments: int  # of AdamW, fp32
    compute_weights: int  # the copy in the compute dtype; 0 where that is fp32
    activations: int  # kept for the backward pass
    logits: int  # of one chunk of positions

    @property
    def total(self) -> int:
        """The sum; an allocator's slack comes on top."""
        return sum(vars(self).values())


@dataclass(frozen=True)
class Cost:
    """A model on sequences of `context` positions (4,096 in the paper: 16 frames of 256 tokens)."""

    config: ModelConfig
    used_ids: int  # codes + 4
    context: int

    @cached_property
    def parameters_by_group(self) -> dict[str, int]:
        """Trained numbers; the table is the head too (tied), which alone meets the 120M, 280M and 1.1B of Table 1."""
        return {"table": self.used_ids * self.config.dim, **self._layers.parameters}

    @property
    def parameters(self) -> int:
        """Their sum: 119.6M for base, 276.9M for large, 1,147M for 1b with 8,192 codes."""
        return sum(self.parameters_by_group.values())

    @property
    def macs_per_token(self) -> int:
        """Forward multiply-adds of one token: every matrix, the head, and causal attention's half of the square."""
        return self._fixed_macs + self._layers.square_macs * self.context // 2

    @property
    def palm_macs_per_token(self) -> int:
        """The same with the whole square of attention, as PaLM counts and most published MFUs do."""
        return self._fixed_macs + self._layers.square_macs * self.context

    @property
    def training_flops_per_token(self) -> int:
        """Forward and backward, causal attention: 0.944 G for base at 4,096 positions."""
        return FLOPS_PER_MAC * TRAINING_PASSES * self.macs_per_token

    @property
    def palm_training_flops_per_token(self) -> int:
        """Forward and backward, the whole square of attention: 1.170 G for base at 4,096 positions."""
        return FLOPS_PER_MAC * TRAINING_PASSES * self.palm_macs_per_token

    def paper_macs(self, sequences: int) -> int:
        """Table 4's "MACs": parameters x images, without tokens, backward pass or attention (1.42e17 is large on
        400 epochs of ImageNet-1k)."""
        return self.parameters * sequences

    def kv_bytes_per_token(self, element_bytes: int = BF16) -> int:
        """Keys and values of one position in every layer: 36 KiB for base in bf16; 0 for Mamba."""
        return self._layers.state_values * element_bytes

    @property
    def state_bytes(self) -> int:
        """What decoding keeps of one sequence whatever its length: 6.5 MB for mamba, in fp32."""
        return self._layers.fixed_state * FP32

    def memory(
        self,
        micro_sequences: int,
        compute_bytes: int = BF16,
        checkpoint_blocks: bool = False,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> Memory:
        """Bytes for a micro-batch of `micro_sequences`; with `checkpoint_blocks` one block is kept at a time."""
        c, tokens = self.config, micro_sequences * self.context
        rows = model_vocab(self.used_ids - CODE_OFFSET)
        allocated = self.parameters + (rows - self.used_ids) * c.dim
        block = self._layers.kept
        blocks = block + c.layers * c.dim if checkpoint_blocks else c.layers * block
        return Memory(
            weights=FP32 * allocated,
            gradients=FP32 * allocated,
            moments=FP32 * ADAM_MOMENTS * allocated,
            compute_weights=0 if compute_bytes == FP32 else compute_bytes * allocated,
            activations=tokens * (blocks + self._layers.kept_at_end) * compute_bytes,
            logits=min(chunk_tokens, tokens) * rows * LOGIT_BYTES,
        )

    @property
    def _fixed_macs(self) -> int:
        return self.used_ids * self.config.dim + self._layers.macs

    @cached_property
    def _layers(self) -> LayerCost:
        return layer_cost(self.config)


def memory_of(cost: Cost, recipe: RecipeConfig, micro_sequences: int) -> Memory:
    """Bytes of a micro-batch as a recipe trains it; `auto` precision counts as bf16, which a GPU takes."""
    compute_bytes = FP32 if recipe.precision == "fp32" else BF16
    return cost.memory(micro_sequences, compute_bytes, recipe.recompute)
