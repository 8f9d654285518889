"""The tools of one worker process: its decoder, its encoder, its view of the target, and what it has counted."""

from dataclasses import dataclass, field

from toto.shards.store import Store
from toto.tokenize.decoder import Decoder
from toto.tokenize.encoder import Encoder
from toto.tokenize.job import Job


@dataclass
class Counters:
    """What a worker has done so far; another thread reads it for the progress line."""

    decoded: int = 0  # frames
    kept: int = 0  # frames, once for each view
    tokens: int = 0
    sources: int = 0
    quarantined: int = 0

    def plus(self, other: "Counters") -> "Counters":
        """The sum of two workers' counts."""
        return Counters(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class Worker:
    """Made once in each process that does units."""

    job: Job
    store: Store
    decoder: Decoder
    encoder: Encoder
    counters: Counters = field(default_factory=Counters)
