"""The tools of one worker process: its decoder, its encoder, its view of the target, and what it has counted."""

from dataclasses import dataclass, field, replace

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
    in_flight: int = 0  # bytes of frames on their way to a tokenizer actor, now
    reasons: dict[str, int] = field(default_factory=dict)  # of the quarantined ones

    def quarantine(self, reason: str) -> None:
        """Counts a source that gave no row."""
        self.quarantined += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def over(self) -> "Counters":
        """The same of a worker that is gone: nothing of it is in flight any more."""
        return replace(self, in_flight=0)

    def plus(self, other: "Counters") -> "Counters":
        """The sum of two workers' counts."""
        numbers = {name: value + getattr(other, name) for name, value in vars(self).items() if name != "reasons"}
        names = {**self.reasons, **other.reasons}
        reasons = {name: self.reasons.get(name, 0) + other.reasons.get(name, 0) for name in names}
        return Counters(**numbers, reasons=reasons)


@dataclass(frozen=True)
class Worker:
    """Made once in each process that does units."""

    job: Job
    store: Store
    decoder: Decoder
    encoder: Encoder
    counters: Counters = field(default_factory=Counters)
