"""Mixtures: exact shares after every W sequences, no negative counts, whatever the batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toto.errors import UsageError
from toto.shards.streaming.mixture import Mixture, Phase

WEIGHTS = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(any)


def slots(mixture: Mixture, first: int, count: int) -> list[tuple[int, int]]:
    return [mixture.at(g) for g in range(first, first + count)]


def test_the_paper_mixture_is_pinned() -> None:
    mixture = Mixture([Phase(0, (20, 10, 10, 60))])
    assert [part for part, _ in slots(mixture, 0, 10)] == [3, 0, 3, 1, 3, 2, 3, 3, 0, 3]
    assert mixture.counts(10**6).tolist() == [200_000, 100_000, 100_000, 600_000]


@given(WEIGHTS, st.integers(0, 300), st.integers(1, 5))
def test_every_w_sequences_hold_each_part_exactly_by_its_weight(weights: list[int], start: int, turns: int) -> None:
    mixture, total = Mixture([Phase(0, tuple(weights))]), sum(weights)
    counts = mixture.counts(start + turns * total) - mixture.counts(start)
    assert counts.tolist() == [weight * turns for weight in weights]


@settings(max_examples=30)
@given(WEIGHTS, WEIGHTS, st.integers(1, 200))
def test_sequences_of_a_part_are_counted_without_gap(first: list[int], second: list[int], change: int) -> None:
    parts = min(len(first), len(second))
    phases = [Phase(0, (*first[:parts], 1)), Phase(change, (*second[:parts], 1))]
    mixture, seen = Mixture(phases), [0] * (parts + 1)
    for g in range(change + 150):
        assert mixture.counts(g).tolist() == seen
        part, earlier = mixture.at(g)
        assert earlier == seen[part]
        seen[part] += 1


@given(st.lists(st.integers(1, 400), min_size=2, max_size=6), st.integers(1, 1024), st.integers(0, 10**9))
def test_batches_of_any_size_never_have_negative_shares(weights: list[int], batch: int, step: int) -> None:
    mixture, total = Mixture([Phase(0, tuple(weights))]), sum(weights)
    counts = mixture.counts((step + 1) * batch) - mixture.counts(step * batch)
    assert counts.min() >= 0 and counts.sum() == batch
    ideal = np.array(weights) * batch / total
    assert (np.abs(counts - ideal) < len(weights)).all()  # also for shares below one sequence a batch


def test_a_share_below_one_in_a_batch_comes_when_it_is_due() -> None:
    mixture = Mixture([Phase(0, (3000, 100, 6900))])  # 30, 1 and 69 %
    batches = np.diff([mixture.counts(g) for g in range(0, 808, 8)], axis=0)
    assert batches.min() >= 0 and set(batches[:, 1]) == {0, 1} and batches.sum(0).tolist() == [240, 8, 552]


@pytest.mark.parametrize(
    "phases",
    [
        [],
        [Phase(1, (1,))],
        [Phase(0, (1,)), Phase(0, (2,))],
        [Phase(0, (1, 1)), Phase(5, (1,))],
        [Phase(0, (0, 0))],
        [Phase(0, (-1, 2))],
        [Phase(0, (19_999, 2))],
    ],
)
def test_what_is_no_mixture_is_refused(phases: list[Phase]) -> None:
    with pytest.raises(UsageError, match="phases from|weights"):
        Mixture(phases)


def test_there_is_no_sequence_below_zero() -> None:
    with pytest.raises(IndexError):
        Mixture([Phase(0, (1,))]).at(-1)
