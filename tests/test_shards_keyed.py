"""Keys and permutations: the same for ever, bijections, and no favourites."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toto.shards.streaming.keyed import MOST, Permutation, key


def test_keys_are_the_same_for_ever() -> None:
    assert key(0) == 0xDE2EC8ED59964B28
    assert key(1, "order", "k600", 3) == 0x773D8BE2ADCCBA60
    assert key(2**64 + 1, "order", "k600", 3) == key(1, "order", "k600", 3)


def test_a_key_tells_its_parts_apart() -> None:
    spelled = [(0,), (0, 0), (0, "0"), (0, ""), (0, "", ""), (0, "ab", "c"), (0, "a", "bc"), (0, "abc"), (1,), (0, -1)]
    assert len({key(seed, *parts) for seed, *parts in spelled}) == len(spelled)


def test_permutations_are_the_same_for_ever() -> None:
    assert [Permutation(10, 7)[i] for i in range(10)] == [7, 4, 9, 2, 5, 1, 0, 8, 3, 6]
    assert [Permutation(MOST, 7)[i] for i in (0, 1, MOST - 1)] == [26816128929956, 209486303716635, 148559971029420]


@given(st.integers(1, 600), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 599), max_size=9))
def test_every_number_is_met_once(n: int, seed: int, some: list[int]) -> None:
    permutation = Permutation(n, seed)
    found = permutation.many(np.arange(n)).tolist()
    assert sorted(found) == list(range(n))
    assert [permutation[i % n] for i in some] == [found[i % n] for i in some]


@given(st.integers(1, MOST), st.integers(0, 2**64 - 1), st.lists(st.integers(0, MOST - 1), min_size=1))
def test_large_permutations_stay_inside_and_never_meet(n: int, seed: int, wanted: list[int]) -> None:
    numbers = np.unique([i % n for i in wanted])
    found = Permutation(n, seed).many(numbers)
    assert found.dtype == np.int64 and ((0 <= found) & (found < n)).all() and len(np.unique(found)) == len(numbers)


@pytest.mark.parametrize("n", [3, 48, 1000])
def test_every_place_is_as_likely_as_any_other(n: int) -> None:
    keys = 3000
    counts = np.zeros((n, n))
    for seed in range(keys):
        counts[np.arange(n), Permutation(n, key(seed)).many(np.arange(n))] += 1
    expected = keys / n
    chi_square = ((counts - expected) ** 2 / expected).sum() / (n - 1) ** 2  # 1 on average for fair shuffles
    assert 0.5 < chi_square < 1.5 + 2 / n


def test_neighbours_do_not_stay_neighbours() -> None:
    steps = np.diff(Permutation(100_000, 1).many(np.arange(100_000)))
    assert Counter(steps.tolist()).most_common(1)[0][1] < 10


def test_what_is_outside_is_refused() -> None:
    for n in (0, MOST + 1):
        with pytest.raises(ValueError, match="are possible"):
            Permutation(n, 0)
    with pytest.raises(IndexError, match="5 of a permutation of 5"):
        Permutation(5, 0)[5]
    with pytest.raises(IndexError):
        Permutation(5, 0).many(np.array([-1]))
