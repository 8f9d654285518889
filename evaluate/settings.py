"""What decides a probe's numbers, besides model and data; written into every result."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

POOLINGS = ("average", "frames", "attention")
ONE_FRAME = "one-frame"  # the control: the first frame's mean, which in a causal model has seen no other frame

METRICS: dict[str, Callable[[Any, Any], Any]] = {  # rank and probability of each source's true class -> its score
    "top1": lambda rank, probability: (rank == 0).astype(float),
    "top5": lambda rank, probability: (rank < 5).astype(float),
    "probability": lambda rank, probability: probability.astype(float),
}

# l2 of `mean cross-entropy + l2/2 |W|^2`; our choice: below, heads on a thousand windows only overfit
PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


@dataclass(frozen=True)
class AttentionRecipe:
    """How attention heads are trained: AdamW, no warm-up, cosine to 0, weight decay 0.01 as V-JEPA's attentive probes;
    the rest is ours, tried on 1,400 videos of eight motions and 400 others, 512 positions each.

    Each step sees a part of the positions, drawn anew: heads were as good with an eighth of them as with all (top-1
    0.332 and 0.331 after 20 epochs) in less than half of the time.
    """

    epochs: int = 30
    batch: int = 64  # windows
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    positions: float = 0.125  # share of the positions of a window in one step
    query_std: float = 0.5  # AIM's 0.02 starts from plain averaging and leaves it late: top-1 0.375, with 0.5 0.412


@dataclass(frozen=True)
class ProbeSettings:
    """One probe."""

    frames: int = 8
    stride: int | None = None  # source frames; None: as stored
    layers: tuple[int, ...] | None = None  # None: all, embedding included
    poolings: tuple[str, ...] = POOLINGS
    views: int = 10  # windows of a source and crop at most, spread evenly (ten: SlowFast's protocol)
    train_split: str = "train"
    test_split: str = "val"
    labels: str = "labels"  # annotation table
    held_out: float = 0.2  # share of the training sources on which is chosen
    penalties: tuple[float, ...] = PENALTIES
    attention: AttentionRecipe = field(default_factory=AttentionRecipe)
    seed: int = 0

    @property
    def protocol(self) -> str:
        """Names the numbers: those of different protocols cannot be compared; the rest is in the configuration."""
        if self.frames == 1:
            return "probe@1f"
        return f"probe@{self.frames}f-{f'stride{self.stride}' if self.stride else 'as-stored'}"
