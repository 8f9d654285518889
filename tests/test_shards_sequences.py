"""Many sequences at once: the same as one by one, for any numbers, without memory that grows with the dataset."""

import tracemalloc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards import ids
from toto.shards.recipe import Part, Recipe, make_recipe
from toto.shards.stream import Stream
from toto.shards.streaming.keyed import key, keys
from toto.shards.streaming.mixture import Phase
from toto.shards.streaming.order import Order
from toto.shards.streaming.part_reader import AGAIN, AHEAD, PartReader
from toto.shards.streaming.windows import Cut, Entries


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two datasets of many shards and batches: videos in two views with images, and videos alone."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("worlds")
    videos = [
        Video(f"{i}.mp4", rng.integers(0, 60, (n, 2, 2)), runs=(n - n // 3, n // 3), views=2)
        for i, n in enumerate(rng.integers(9, 60, 40).tolist())
    ]
    images = [Image(f"{i}.png", rng.integers(0, 60, (2, 2)), views=2) for i in range(90)]
    more = [Video(f"more/{i}.mp4", rng.integers(0, 64, (30, 2, 2))) for i in range(50)]
    return (
        write_tokens(folder / "mixed", videos, images, unit_sources=9, batch_bytes=600),
        write_tokens(folder / "more", more, unit_sources=11, batch_bytes=900),
    )


@lru_cache
def stream(roots: tuple[Path, Path], frames: int = 4, stride: int = 4, hop: int | None = None) -> Stream:
    sources = [("mixed", str(roots[0]), 2, None), ("more", str(roots[1]), 1, None)]
    made = make_recipe(sources, frames, stride, 3, 8, hop=hop)
    return Stream(Recipe(**{**vars(made), "phases": (*made.phases, Phase(700, (1, 0, 2)))}))


def by_hand(of: Stream, g: int) -> tuple[list[tuple[str, int, int, int]], np.ndarray]:
    """(source, run, view, start) of every clip and the ids of the g-th sequence: the definition, one step at a time."""
    recipe, total = of.recipe, g
    counts = [0] * len(recipe.parts)
    phases = [*recipe.phases, Phase(1 << 60, ())]
    part = 0
    for phase, following in zip(phases, phases[1:], strict=False):
        behind, weights = [0] * len(phase.weights), phase.weights
        for _ in range(phase.from_sequence, min(following.from_sequence, total + 1)):
            behind = [b + w for b, w in zip(behind, weights, strict=True)]
            part = behind.index(max(behind))
            behind[part] -= sum(weights)
            counts[part] += 1
    one = recipe.parts[part]
    dataset, video = of.dataset(one.name), one.kind == "video"
    per, step = (1, (recipe.stride or 4) // 4) if video else (recipe.images_per_sequence, 1)
    span, hop = ((recipe.frames - 1) * step + 1, recipe.hop * step) if video else (1, 1)
    entries = []
    for shard in range(len(dataset.image_counts())):
        lengths = dataset.row_lengths(shard)[:: dataset.views].tolist()
        for run, n in enumerate(lengths):
            if video:
                entries += [(shard, run, k, (n - span) % hop) for k in range((n - span) // hop + 1) if n >= span]
            elif n == 0:
                entries.append((shard, run, 0, 0))
    clips, tokens = [], [ids.VIDEO_START if video else ids.IMAGE_START]
    block = max(1, min(32, 32_768 // (hop * recipe.cells * dataset.views)))
    order = Order(len(entries), block, recipe.seed, one.name)
    for i in range(per):
        epoch, entry = order.at((counts[part] - 1) * per + i)
        shard, run, k, slack = entries[entry]
        of_run = key(recipe.seed, "run", one.name, epoch, shard, run)
        row = dataset.shard_row(shard, run * dataset.views + key(of_run, "view") % dataset.views)
        start = k * hop + key(of_run, "phase") % (slack + 1)
        codes = row.codes[start : start + span : step]
        clips.append((row.source, row.run, row.view, start))
        tokens += (codes.reshape(-1) + ids.CODE_OFFSET).tolist()
    return clips, np.array([*tokens, ids.END])


@pytest.mark.parametrize("frames, stride, hop", [(4, 4, None), (3, 8, None), (5, 4, 2), (6, 12, 1)])
def test_sequences_are_what_their_definition_says(
    roots: tuple[Path, Path], frames: int, stride: int, hop: int | None
) -> None:
    of = stream(roots, frames, stride, hop)
    numbers = np.array([0, 1, 2, 57, 691, 699, 700, 701, 1023, 300])
    batch = of.sequences(numbers)
    assert batch.tokens.dtype == np.uint16 and batch.tokens.shape == (10, of.context + 2)
    for sequence, g in zip(batch, numbers.tolist(), strict=True):
        clips, tokens = by_hand(of, g)
        assert sequence.number == g and (sequence.tokens == tokens).all()
        assert [(c.source, c.row.run, c.row.view, c.start) for c in sequence.clips] == clips


@settings(max_examples=25)
@given(data=st.data())
def test_many_at_once_are_the_same_as_one_by_one(roots: tuple[Path, Path], data: st.DataObject) -> None:
    of = stream(roots)
    near = st.integers(0, 1200)
    numbers = data.draw(st.lists(st.one_of(near, near, st.integers(0, 10**12)), min_size=1, max_size=40))
    if data.draw(st.booleans()):
        numbers = list(range(numbers[0], numbers[0] + data.draw(st.integers(1, 3 * AHEAD))))
    batch = of.sequences(np.array(numbers))
    alone = [of.sequence(g) for g in numbers[:8]]
    assert len(batch) == len(numbers) == len(batch.tokens)
    for i, one in enumerate(alone):
        mine = batch[i]
        assert (mine.number, mine.part, mine.epoch) == (one.number, one.part, one.epoch)
        assert (mine.tokens == one.tokens).all() and int(batch.hashes[i]) == mine.hash == one.hash
        assert [(c.source, c.start) for c in mine.clips] == [(c.source, c.start) for c in one.clips]
    assert batch.hash == sum(batch.hashes.tolist()) % 2**64
    assert [of.parts[p] for p in batch.parts.tolist()] == [sequence.part for sequence in batch]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_reading_on_in_steps_of_any_size_gives_the_stream(roots: tuple[Path, Path], sizes: list[int]) -> None:
    of, at = stream(roots), 0
    expected = _first(of)
    for size in sizes:
        assert (of.sequences(range(at, at + size)).tokens == expected[at : at + size]).all()
        at += size


def test_threads_may_share_a_stream(roots: tuple[Path, Path]) -> None:
    of = Stream(stream(roots).recipe)
    expected = _first(stream(roots))

    def read(thread: int) -> bool:
        starts = range(7 * thread, 900, 11 + thread)
        return all((of.sequences(range(g, g + 9)).tokens == expected[g : g + 9]).all() for g in starts)

    with ThreadPoolExecutor(6) as threads:
        assert all(threads.map(read, range(6)))


@lru_cache
def _first(of: Stream) -> np.ndarray:
    return Stream(of.recipe).sequences(range(12 * 90)).tokens


def test_no_sequences_and_sequences_below_zero(roots: tuple[Path, Path]) -> None:
    assert stream(roots).sequences(range(0)).tokens.shape == (0, 18)
    with pytest.raises(IndexError, match="sequence -1; the first is 0"):
        stream(roots).sequences(range(-1, 3))
    with pytest.raises(IndexError, match="sequence 5 of 5"):
        stream(roots).sequences(range(5))[5]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1), st.text(), st.integers(0, 2**64 - 1))
def test_keys_of_many_numbers_are_those_of_each(numbers: list[int], name: str, seed: int) -> None:
    assert keys(seed, name, np.array(numbers), "x").tolist() == [key(seed, name, n, "x") for n in numbers]


class Asked(Dataset):
    """Counts the batches that a reader of 64 of them would have to inflate, and those that were announced."""

    def watch(self) -> None:
        self.kept: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.inflated, self.late = 0, 0
        self.announced: set[tuple[int, int]] = set()

    def shard_batch(self, shard, batch):  # type: ignore[no-untyped-def]
        place = (shard, batch)
        self.inflated += place not in self.kept
        self.late += place not in self.announced
        self.kept[place] = None
        self.kept.move_to_end(place)
        if len(self.kept) > 64:
            self.kept.popitem(last=False)
        return super().shard_batch(shard, batch)

    def prefetch(self, wanted: Sequence[tuple[int, int]]) -> None:
        self.announced |= set(wanted)
        super().prefetch(wanted)


def test_batches_are_asked_for_before_they_are_needed_and_serve_several_windows(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 1024, (64, 16, 16))
    root = write_tokens(tmp_path, [Video(str(i), codes) for i in range(160)], vocab_size=1024, batch_bytes=128 * 1024)
    with patch("toto.shards.stream.Dataset", Asked):
        of = Stream(make_recipe([("world", str(root), 1, None)], 4, 4, 0, 8))
    dataset, windows = of.dataset("world"), of.sequences_per_epoch()["world"]
    assert isinstance(dataset, Asked) and windows == 160 * 16
    dataset.watch()
    for g in range(0, windows, 8):
        of.sequences(range(g, g + 8))
    assert windows / dataset.inflated > 15
    assert dataset.late <= 8  # only those of the first call, which nothing came before


def test_a_thousand_million_windows_take_no_memory() -> None:
    """The arithmetic of a stream over 20,000 shards of 12,500 runs of 64 frames, at its start, middle and end."""

    class Virtual:
        views = 2

        def window_counts(self, *_: int) -> np.ndarray:
            return np.full(20_000, 2 * 4 * 12_500)

        def row_lengths(self, shard: int) -> np.ndarray:
            return np.full(2 * 12_500, 67, np.uint16)

        def batch_ends(self, shard: int) -> np.ndarray:
            return np.arange(16, 2 * 12_500 + 16, 16)

        def prefetch(self, wanted: Sequence[tuple[int, int]]) -> None:
            assert len(wanted) <= 2 * AHEAD

    part = Part("howto100m", "", "0" * 64, "train", "video")
    recipe = Recipe((part,), (Phase(0, (1,)),), 0, 16, None, 16, 16, 256, (16, 16))
    tracemalloc.start()
    reader = PartReader(part, Virtual(), recipe)  # type: ignore[arg-type]
    assert reader.entries.count == 10**9
    for first in (0, 5 * 10**8, 10**9 - 300, 3 * 10**9 + 7):
        for n in range(first, first + 600, 50):
            places = reader.find(np.arange(n, n + 50))
            assert set(places.epochs.tolist()) <= {n // 10**9, (n + 49) // 10**9}
            assert (places.rows == places.batches * 16 + places.inside).all() and (places.starts <= 51).all()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30e6


def test_a_row_that_is_shorter_than_its_results_say_is_named(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, [Video("short.mp4", np.zeros((8, 2, 2), int))])
    of = Stream(make_recipe([("world", str(root), 1, None)], 4, 4, 0, 2))
    with patch.object(Dataset, "row_lengths", lambda self, shard: np.array([12], np.uint16)):
        of._parts[0].entries = Entries(Longer(of.dataset("world")), Cut(4, 1, 4))  # type: ignore[arg-type]
        with pytest.raises(UserError, match="short.mp4, run 0, view 0: 8 frames, fewer than its source's results say"):
            of.sequences(range(3))


def test_ids_of_another_type_than_the_vocabulary_s_are_refused(tmp_path: Path) -> None:
    with patch("token_world.ids.id_dtype", lambda vocab_size: np.dtype(np.uint32)):
        root = write_tokens(tmp_path, [Video("wide.mp4", np.zeros((8, 2, 2), int))])
    of = Stream(make_recipe([("world", str(root), 1, None)], 4, 4, 0, 2))
    with pytest.raises(UserError, match="wide.mp4, run 0, view 0: ids of uint32 instead of uint16; tokenize it anew"):
        of.sequences(range(2))


class Longer:
    """A dataset whose manifest counts a window more than it has."""

    views = 1

    def __init__(self, dataset: Dataset) -> None:
        self.row_lengths = dataset.row_lengths

    def window_counts(self, *_: int) -> np.ndarray:
        return np.array([3])


@pytest.mark.parametrize("step, size", [(300, 8), (700, 300), (512, 512)])
def test_who_reads_a_share_of_the_batches_finds_the_next_one_there(
    step: int, size: int, roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, found = stream(roots), stream.__wrapped__(roots)
    wanted: set[tuple[str, int, int]] = set()
    for part, reader in zip(of.parts, found._parts, strict=True):

        def ask(pairs: list[tuple[int, int]], part: str = part) -> None:
            wanted.update((part, *pair) for pair in pairs)

        monkeypatch.setattr(reader, "dataset", Announced(reader.dataset, ask))
    for call in range(6):
        numbers = np.arange(call * step, call * step + size)
        known = set(wanted)
        batch = found.sequences(numbers)
        assert (batch.tokens == of.sequences(numbers).tokens).all()
        if call in (2, 5):  # the third one on: after two jumps alike, of each phase
            needed = {
                (of.parts[part], *pair) for part, origin in batch.origins.items() for pair in origin.places.pairs(0)
            }
            assert needed <= known


def test_batches_that_were_too_many_at_once_are_asked_for_again(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, room, asked = stream.__wrapped__(roots), False, list[int]()
    reader = found._parts[0]

    def ask(pairs: list[tuple[int, int]]) -> bool:
        asked.append(len(pairs))
        return room

    monkeypatch.setattr(reader, "dataset", Announced(reader.dataset, ask))
    reader.find(np.arange(8))
    for i, asks in enumerate([True, True, True, False], 1):  # after the third all are on their way
        room, before = i > 2, len(asked)
        reader.find(np.arange(i * AGAIN, i * AGAIN + 8))
        assert (len(asked) > before) is asks


class Announced:
    """A dataset that tells which batches are asked for ahead."""

    def __init__(self, dataset: Dataset, prefetch: Callable[[list[tuple[int, int]]], bool | None]) -> None:
        self._dataset, self.prefetch = dataset, prefetch

    def __getattr__(self, name: str) -> object:
        return getattr(self._dataset, name)
