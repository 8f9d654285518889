"""What actors tell Ray's metrics, for a dashboard (Prometheus, Grafana); names begin with `ray_toto_` there.

Numbers are handed over about once a second from counts that exist anyway; nothing is computed for nobody.
"""

import numpy as np
from ray.util.metrics import Counter, Gauge

from toto.tokenize.gather import Gatherer
from toto.tokenize.worker import Counters

COUNTS = {
    "decoded": "frames decoded",
    "kept": "frames kept, once for each view",
    "tokens": "ids written into rows",
    "sources": "sources finished, quarantined ones too",
}


class WorkerMetrics:
    """A worker's counts, by dataset."""

    def __init__(self, dataset: str) -> None:
        tags = {"dataset": dataset}
        self._counts = {name: _counter(f"toto_{name}", what, tags) for name, what in COUNTS.items()}
        self._units = _counter("toto_units", "units committed", tags)
        self._bad = Counter("toto_quarantined", "sources that gave no row", tag_keys=("dataset", "reason"))
        self._bad.set_default_tags(tags)
        self._in_flight = Gauge("toto_bytes_in_flight", "frames on their way to tokenizer actors", ("dataset",))
        self._in_flight.set_default_tags(tags)
        self._told = Counters()

    def unit_done(self) -> None:
        """Counts a unit."""
        self._units.inc()

    def show(self, now: Counters) -> None:
        """Tells what was added since the last time."""
        for name, counter in self._counts.items():
            if more := getattr(now, name) - getattr(self._told, name):
                counter.inc(more)
        for reason, count in now.reasons.items():
            if more := count - self._told.reasons.get(reason, 0):
                self._bad.inc(more, {"reason": reason})
        self._in_flight.set(now.in_flight)
        self._told = Counters(**{**vars(now), "reasons": dict(now.reasons)})


class TokenizerMetrics:
    """A tokenizer actor's counts."""

    def __init__(self) -> None:
        self._encoded = Counter("toto_encoded", "pictures encoded")
        self._filled = Counter("toto_filled", "zeros that filled batches up")
        self._waiting = Gauge("toto_bytes_waiting", "frames that wait in this tokenizer actor, or are being encoded")
        self._bytes = 0
        self._told = [0, 0]

    def came(self, frames: np.ndarray) -> None:
        """A block came."""
        self._bytes += frames.nbytes
        self._waiting.set(self._bytes)

    def went(self, frames: np.ndarray, gatherer: Gatherer) -> None:
        """It is encoded."""
        self._bytes -= frames.nbytes
        self._waiting.set(self._bytes)
        for i, (counter, now) in enumerate(((self._encoded, gatherer.encoded), (self._filled, gatherer.filled))):
            if now > self._told[i]:
                counter.inc(now - self._told[i])
                self._told[i] = now


def _counter(name: str, what: str, tags: dict[str, str]) -> Counter:
    counter = Counter(name, what, tuple(tags))
    counter.set_default_tags(tags)
    return counter
