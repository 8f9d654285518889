"""What workers and tokenizer actors tell Ray's metrics; Ray's own endpoint needs more than the package `ray` alone."""

from collections import Counter as Count
from typing import Any

import numpy as np
import pytest

from toto.tokenize.worker import Counters


class Recorder:
    """Stands where ray.util.metrics does."""

    def __init__(self) -> None:
        self.values: Count[tuple[str, ...]] = Count()

    def metric(self, name: str, description: str = "", tag_keys: tuple[str, ...] = ()) -> "Metric":
        return Metric(self, name, tag_keys)


class Metric:
    def __init__(self, recorder: Recorder, name: str, tag_keys: tuple[str, ...]) -> None:
        self._recorder, self._name, self._keys = recorder, name, tag_keys
        self._tags: dict[str, str] = {}

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self._tags = tags

    def inc(self, value: float = 1.0, tags: dict[str, str] | None = None) -> None:
        assert value > 0
        self._recorder.values[self._key(tags)] += value

    def set(self, value: float, tags: dict[str, str] | None = None) -> None:
        self._recorder.values[self._key(tags)] = value

    def _key(self, tags: dict[str, str] | None) -> tuple[str, ...]:
        given = {**self._tags, **(tags or {})}
        assert set(given) == set(self._keys)
        return (self._name, *(given[key] for key in self._keys))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Count[tuple[str, ...]]:
    from toto.tokenize import metrics

    recorder = Recorder()
    for name in ("Counter", "Gauge"):
        monkeypatch.setattr(metrics, name, recorder.metric)
    return recorder.values


def test_a_workers_counts_add_up_however_often_they_are_told(recorded: Any) -> None:
    from toto.tokenize.metrics import WorkerMetrics

    told, now = WorkerMetrics("k400"), Counters()
    for _ in range(3):
        now.decoded += 100
        now.kept += 25
        now.tokens += 6400
        now.quarantine("timeout")
        now.in_flight += 10
        told.show(now)
        told.show(now)
    told.unit_done()
    assert recorded["toto_decoded", "k400"] == 300 and recorded["toto_kept", "k400"] == 75
    assert recorded["toto_tokens", "k400"] == 19_200 and recorded["toto_units", "k400"] == 1
    assert recorded["toto_quarantined", "k400", "timeout"] == 3
    assert recorded["toto_bytes_in_flight", "k400"] == 30


def test_a_tokenizer_actor_tells_what_waits_in_it_and_what_it_filled_up(recorded: Any) -> None:
    from toto.tokenize.metrics import TokenizerMetrics

    class Gathered:
        encoded, filled = 3, 5

    told, frames = TokenizerMetrics(), np.zeros((3, 8, 8, 3), np.uint8)
    told.came(frames)
    assert recorded[("toto_bytes_waiting",)] == frames.nbytes
    told.went(frames, Gathered())  # type: ignore[arg-type]
    assert recorded[("toto_bytes_waiting",)] == 0
    assert (recorded[("toto_encoded",)], recorded[("toto_filled",)]) == (3, 5)
