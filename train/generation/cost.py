"""What generation costs, from numbers alone: cache, FLOPs, and how fast a card could decode at best.

A decoding step reads every weight once and the keys and values of every clip: memory bandwidth bounds it, until many
clips share a step. Positions are counted over a whole context from nothing on, so half of it is read on average.
"""

from dataclasses import dataclass
from typing import Any

from toto.gpus import bandwidth
from toto.plain import counted
from toto.train.cost import BF16, FLOPS_PER_MAC, Cost
from toto.train.watch.progress import amount, duration

BATCHES = (1, 64)  # clips at once
HOUR = 3600  # seconds


@dataclass(frozen=True)
class GenerationCost:
    """A model that makes clips as long as its context, in bf16."""

    cost: Cost
    card: str

    @property
    def cache_bytes(self) -> int:
        """What is kept of one clip at the end of its context: 151 MB for base, 16 frames of 256."""
        return self.cost.kv_bytes_per_token() * self.cost.context + self.cost.state_bytes

    @property
    def clip_flops(self) -> int:
        """Of one clip, every position computed once."""
        return FLOPS_PER_MAC * self.cost.macs_per_token * self.cost.context

    @property
    def prefill_flops(self) -> int:
        """Of a prompt of half the context."""
        half = Cost(self.cost.config, self.cost.used_ids, self.cost.context // 2)
        return FLOPS_PER_MAC * half.macs_per_token * half.context

    def tokens_per_s(self, batch: int) -> float:
        """Codes a second that bandwidth allows when so many clips are made at once."""
        mean = self.cost.kv_bytes_per_token() * self.cost.context / 2 + self.cost.state_bytes
        return batch * bandwidth(self.card) / (BF16 * self.cost.parameters + batch * mean)

    def value(self, clips: int) -> dict[str, Any]:
        """For JSON; `gpu_hours` are the fewest that so many clips can take."""
        return {
            "kv_bytes_per_token": self.cost.kv_bytes_per_token(),
            "cache_bytes": self.cache_bytes,
            "prefill_flops": self.prefill_flops,
            "decode_flops_per_token": self.clip_flops // self.cost.context,
            "bytes_per_second": bandwidth(self.card),
            "tokens_per_s": {str(batch): self.tokens_per_s(batch) for batch in BATCHES},
            "clips": clips,
            "gpu_hours": clips * self.cost.context / self.tokens_per_s(BATCHES[-1]) / HOUR,
        }


def lines_of(found: dict[str, Any], card: str) -> list[str]:
    """The value for a person."""
    seconds = found["gpu_hours"] * HOUR
    time = duration(seconds) if seconds >= 1 else "less than a second"
    rates = ", ".join(f"{amount(rate)} with {batch}" for batch, rate in found["tokens_per_s"].items())
    return [
        f"{amount(found['kv_bytes_per_token'])}B of cache a token, {amount(found['cache_bytes'])}B a clip at its end",
        f"{amount(found['prefill_flops'])}FLOPs for a prompt of half a context, "
        f"{amount(found['decode_flops_per_token'])}FLOPs for each code",
        f"at most, by {card}'s {amount(found['bytes_per_second'])}B/s, codes a second: {rates} clips at once",
        f"{counted(found['clips'], 'clip')}: {time} on one {card}, at least",
    ]
