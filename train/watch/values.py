"""What the log of a run is given and gives back: sums of a step, what MFU is measured by, how a call ended."""

from dataclasses import dataclass

import torch

from toto.train.cost import Cost


@dataclass(frozen=True)
class Done:
    """How a call of `train` ended."""

    checkpoint: str  # its folder, or URI
    step: int
    loss: float | None  # of the last step; None where nothing was left to do
    validation_loss: float | None
    validation_sequences: int | None  # that it is the mean over
    tokens_per_s: float | None  # median over the log
    mfu: float | None  # causal attention
    mfu_palm: float | None  # the whole square of attention, PaLM's 12·L·d·T
    seconds: dict[str, float]  # `wall`, and what of it was no step, by name


@dataclass
class StepSums:
    """What one step adds up, still on the device: reading it would wait for the GPU."""

    step: int
    losses: torch.Tensor  # float64 [parts, 2]: loss and number of tokens of each part of the mixture
    grad_norm: torch.Tensor
    ledger: torch.Tensor  # int64: hash of the batch
    rate: float
    skipped: torch.Tensor | None  # 0 or 1; None where no step is skipped


@dataclass
class Yardstick:
    """What MFU is measured by."""

    cost: Cost
    peak: float  # FLOP/s of all devices

    def saw(self, tokens_per_s: float) -> None:
        """A peak below what training reached is raised to that: it was measured while others had the cores."""
        self.peak = max(self.peak, tokens_per_s * self.cost.training_flops_per_token)

    def mfu(self, tokens_per_s: float) -> float:
        """Share of the peak; of attention, the half of the square that a causal model needs."""
        return tokens_per_s * self.cost.training_flops_per_token / self.peak

    def mfu_palm(self, tokens_per_s: float) -> float:
        """The same with the whole square (PaLM, appendix B), as most published figures count."""
        return tokens_per_s * self.cost.palm_training_flops_per_token / self.peak
