"""Loss spikes: a step whose loss or gradient leaps is not taken, and its batch is written down.

    loss, gradient norm ─▶ running mean and spread of both ─▶ skip: 0 or 1, on the device ─▶ AdamW's `found_inf`
                                                               └─ read with the log ─▶ spikes/step-000041200.json

Nothing waits for the device: the fused AdamW leaves weights and moments as they are where `found_inf` is 1. The state
is part of every checkpoint, so a resumed run judges as the undisturbed one does.
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from toto.files import write_whole
from toto.shards.look.seen import seen_at, seen_json
from toto.shards.stream import Stream
from toto.train.parallel import Team

FOLDER = "spikes"
WARM_UP = 64  # steps before anything but a number that is not finite is a spike
WINDOW = 128  # steps that the mean and the spread look back on
MEMORY = 256  # steps over which spikes are counted, the older the less
PATIENCE = 8  # spikes of late are no accident: another phase of the mixture, or batches of a new kind; they are taken
FLOOR = (0.01, 0.05)  # least spread of the loss in nats, and of the logarithm of the norm


class SpikeGuard:
    """Says of each step whether to skip it; `sigmas` spreads above the mean are a spike, 0 skips nothing."""

    def __init__(self, sigmas: float, device: torch.device) -> None:
        self.sigmas = sigmas
        # steps that count, spikes of late, then means and variances of loss and log norm
        self.state = torch.zeros(6, dtype=torch.float32, device=device)
        self._floor = torch.tensor(FLOOR, device=device)

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """fp32 0 or 1, on the device: whether to leave the weights as they are; the same for every process."""
        seen, recent, mean, variance = self.state[0], self.state[1], self.state[2:4], self.state[4:6]
        value = torch.stack([loss, grad_norm.clamp(min=1e-30).log()]).float()
        finite = value.isfinite().all()
        value = torch.where(finite, value, mean)
        above = (value - mean) / torch.maximum(variance.sqrt(), self._floor)
        spike = ~finite | ((seen >= WARM_UP) & (above > self.sigmas).any())
        recent = (1 - 1 / MEMORY) * recent + spike
        skip = spike & ~(finite & (recent > PATIENCE))
        pace, step = torch.clamp(1 / (seen + 1), min=1 / WINDOW), value - mean
        moved = torch.cat([mean + pace * step, (1 - pace) * (variance + pace * step**2)])
        kept = torch.where(skip, self.state[2:], moved)
        self.state.copy_(torch.cat([torch.where(skip, seen, seen + 1)[None], recent[None], kept]))
        return skip.float()


def write_spike(run: Path, stream: Stream, step: int, loss: float | None, grad_norm: float | None) -> Path:
    """Writes what a skipped step read: its sequences with sources, frames and times (`toto-shards seen --json`)."""
    path = run / FOLDER / f"step-{step:09d}.json"
    found = {"loss": loss, "grad_norm": grad_norm, **seen_json(seen_at(stream, step))}
    write_whole(path, json.dumps(found, indent=1).encode() + b"\n")
    return path


def guard_of(sigmas: float, team: Team) -> SpikeGuard | None:
    """The guard of a run; None where it is switched off."""
    return SpikeGuard(sigmas, team.device) if sigmas else None
