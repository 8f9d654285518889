"""The order of a part: every entry once an epoch, another order each epoch, neighbours together, no arrays."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toto.shards.streaming.order import GROUP_BLOCKS, Order, block_of
from toto.shards.streaming.windows import Cut, Entries


class Virtual:
    """A dataset of 20,000 shards of 12,500 runs of 64 frames: a thousand million windows of 16."""

    views = 1
    shards = 20_000

    def __init__(self) -> None:
        self.asked: set[int] = set()

    def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
        return np.full(self.shards, 4 * 12_500)

    def image_counts(self) -> np.ndarray:
        return np.zeros(self.shards, np.int64)

    def row_lengths(self, shard: int) -> np.ndarray:
        self.asked.add(shard)
        return np.full(12_500, 64, np.uint16)


@given(st.integers(1, 3000), st.integers(1, 40), st.integers(0, 5), st.integers(0, 2))
def test_every_entry_comes_once_an_epoch(entries: int, block: int, seed: int, epoch: int) -> None:
    order = Order(entries, block, seed, "k600")
    epochs, found = order.many(epoch * entries + np.arange(entries))
    assert set(epochs.tolist()) == {epoch} and sorted(found.tolist()) == list(range(entries))
    assert all(order.at(epoch * entries + i) == (epoch, found[i]) for i in range(0, entries, 97))


def test_epochs_seeds_and_parts_have_orders_of_their_own() -> None:
    orders = [(seed, part, epoch) for seed in (0, 1) for part in ("a", "b") for epoch in (0, 1)]
    found = {tuple(Order(40, 4, s, p).at(e * 40 + i)[1] for i in range(40)) for s, p, e in orders}
    assert len(found) == len(orders)


def test_the_order_is_the_same_for_ever() -> None:
    assert [Order(10**6, 8, 0, "k600").at(n)[1] for n in (0, 1, 2, 10**6, 10**12)] == [
        70599,
        548132,
        47720,
        338943,
        887486,
    ]


def test_a_group_is_read_from_few_places() -> None:
    order = Order(100_000, 8, 0, "k600")
    group = np.array([order.at(n)[1] for n in range(8 * GROUP_BLOCKS)])
    assert len(np.unique(group // 16)) <= 2 * GROUP_BLOCKS  # batches of 16 windows: a block touches two at most
    assert len(np.unique(group // 64)) > 40  # and not only from one corner
    steps = np.abs(np.diff(group))
    assert (steps <= 8).mean() < 0.1  # those of a block do not follow one another


def test_blocks_are_half_a_record_batch_or_one_entry() -> None:
    assert [block_of(n) for n in (4096, 256, 32_768, 10**6, 1)] == [8, 32, 1, 1, 32]


def test_a_thousand_million_windows_take_no_memory() -> None:
    index = Virtual()
    entries = Entries(index, Cut(16, 1, 16))
    assert entries.count == 10**9
    order = Order(entries.count, 8, 0, "howto100m")
    tracemalloc.start()
    wanted = np.arange(0, 3 * 10**9, 3 * 10**9 // 300)
    epochs, found = order.many(wanted)
    shards, runs, k, slack = entries.many(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (epochs == wanted // 10**9).all() and not slack.any()
    assert ((shards * 12_500 + runs) * 4 + k == found).all()
    assert len(index.asked) > 250 and peak < 40e6


@given(st.lists(st.integers(0, 90), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 4), st.integers(1, 50))
def test_entries_are_the_windows_of_the_runs_in_order(lengths: list[int], frames: int, stride: int, hop: int) -> None:
    class Few(Virtual):
        views = 3
        shards = 2

        def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
            from toto.shards.row import windows_in

            return np.array([windows_in(self.row_lengths(s), frames, stride, hop).sum() for s in (0, 1)])

        def row_lengths(self, shard: int) -> np.ndarray:
            return np.repeat(np.array(lengths[::-1] if shard else lengths, np.uint16), 3)

    span = (frames - 1) * stride + 1
    expected = [
        (shard, run, start)
        for shard, runs in enumerate((lengths, lengths[::-1]))
        for run, n in enumerate(runs)
        for start in range(0, n - span + 1, hop)
    ]
    entries = Entries(Few(), Cut(frames, stride, hop))
    found = [entries.at(i) for i in range(entries.count)]
    assert [(e.shard, e.run, e.k * hop) for e in found] == expected
    for entry in found:
        length = (lengths[::-1] if entry.shard else lengths)[entry.run]
        last = max(start for shard, run, start in expected if (shard, run) == (entry.shard, entry.run))
        assert last + span + entry.slack == length and 0 <= entry.slack < max(hop, 1)
    with pytest.raises(IndexError):
        entries.at(entries.count)
