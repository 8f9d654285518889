"""A part of a recipe with its dataset opened: where its n-th sequences lie, and their ids, for many n at once.

    n ─Order─▶ epoch, entry ─Entries─▶ shard, run ─keyed─▶ view, phase ─▶ row, first frame ─▶ batch ─▶ ids, pixels

All but the last arrow is arithmetic over whole arrays; the last one copies slices of mapped record batches. Reading
on from where one was has the arithmetic of the next `AHEAD` sequences done at once, their batches in the background.
A process of many, which reads every n-th batch, has its next one looked for ahead.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from toto.errors import UserError
from toto.lazy import cached_property
from toto.plain import counted
from toto.shards.batch import Batch
from toto.shards.dataset import Dataset
from toto.shards.ids import END, IMAGE_START, VIDEO_START
from toto.shards.recipe import Part, Recipe
from toto.shards.row import Row, Window, cut_window
from toto.shards.streaming.alike import sorted_runs, unsorted
from toto.shards.streaming.keyed import keys
from toto.shards.streaming.order import Order, block_of
from toto.shards.streaming.patches import to_patches
from toto.shards.streaming.windows import KNOWN_SHARDS, Cut, Entries, Index, stored_cut

AHEAD = 256  # sequences, of some 5 groups; their batches are a tenth of those that a reader keeps
AT_ONCE = 2_048  # clips whose arithmetic is done together by who reads on: by AHEAD it takes twice as long
MARGIN = 8  # sequences by which the next jump may be longer or shorter: parts of a mixture take turns
AGAIN = 64  # sequences after which the next batches are asked for again
IMAGE = Cut(1, 1, 1)
_NONE = np.zeros(1, np.int64)


class Places(NamedTuple):
    """Where sequences of one part lie: k clips each, one of a video, several of images."""

    epochs: np.ndarray  # int64 [n], of the first clip of each
    shards: np.ndarray  # int64 [n, k]
    rows: np.ndarray  # int64 [n, k]: of the shard
    batches: np.ndarray  # int64 [n, k]: record batches of the shard
    inside: np.ndarray  # int64 [n, k]: rows of the batch
    starts: np.ndarray  # int64 [n, k]: first frames, of the row

    def take(self, which: np.ndarray | slice) -> "Places":
        """Those of these sequences, int64 [m]."""
        return Places(*(column[which] for column in self))

    def pairs(self, first: int) -> list[tuple[int, int]]:
        """(shard, batch) of every record batch that the sequences from `first` on need, in the order of need."""
        both = (column[first:].reshape(-1).tolist() for column in (self.shards, self.batches))
        return list(dict.fromkeys(zip(*both, strict=True)))


class PartReader:
    """Finds and copies the sequences of one part."""

    def __init__(self, part: Part, dataset: Dataset, recipe: Recipe, index: Index | None = None) -> None:
        """`index` tells which rows count; None: all of the dataset."""
        self.part, self.dataset, self._recipe = part, dataset, recipe
        video = part.kind == "video"
        cut = stored_cut(dataset, recipe.frames, recipe.stride, recipe.hop) if video else None
        self.entries, self.cut = Entries(index or dataset, cut), cut or IMAGE
        self._bounds = lru_cache(maxsize=KNOWN_SHARDS)(self._count_rows)
        self.start_id = VIDEO_START if video else IMAGE_START
        self.per_sequence = 1 if video else recipe.images_per_sequence
        self._ahead: list[tuple[int, Places]] = []  # number of the first sequence, and where AHEAD of them lie
        self._last = self._announced = -1 - AHEAD
        self._asked: set[int] = set()  # those of `_ahead`, by first number, of which no batch was left out
        self._jumps: tuple[int, int, list[tuple[int, Places]]] = (0, 0, [])  # the last first number, its step, ahead
        if self.entries.count < self.per_sequence:
            raise UserError(f"{part.name}: {dataset.store.uri} has nothing to read for it; make a recipe anew")

    def find(self, n: np.ndarray, fetch: bool = True) -> Places:
        """int64 [k], k > 0: where the part's n-th sequences lie. `fetch`: their batches, and the next ones, are brought
        in the background; who asks for many at once, to have other processes read them, does without."""
        if not fetch:
            return self._find(n)
        first, last = int(n.min()), int(n.max())
        reads_on, self._last = self._last < first <= self._last + AHEAD, last
        if last - first >= AHEAD or not reads_on:
            return self._jump(n, first, last)
        ahead = [known for known in self._ahead if known[0] + AHEAD > first]
        if not ahead or ahead[0][0] > first:
            ahead = self._look_ahead(first)
        while ahead[-1][0] <= last:
            ahead += self._look_ahead(ahead[-1][0] + AHEAD)
        self._ahead = ahead  # never changed in place: another thread may be reading it
        needed = [known for known in ahead if known[0] <= last]
        self._announce(first, ahead[: len(needed) + 1])
        start, places = needed[0]
        if len(needed) > 1:
            places = _joined([places for _, places in needed])
        return places.take(n - start)

    def copy(self, places: Places, tokens: np.ndarray, lines: np.ndarray) -> int:
        """Fills these lines of `tokens` [n, context + 2], which lie one behind the other, with the ids of what was
        found; the highest `Batch.ids_end` of the record batches that they came from. UserError where a row is not what
        its source's results say."""
        cells, cut = self._recipe.cells, self.cut
        size, span, grid = cut.frames * cells, cut.span * cells, self._recipe.grid
        tokens[lines, 0], tokens[lines, -1] = self.start_id, END
        to_line, to_column = self._slots(lines, size)
        codes, last, ids_end = tokens.reshape(-1).data, -1, 0
        for pair, row, start, to in self._clips(places, to_line * tokens.shape[1] + 1 + to_column):
            if pair != last:
                last, batch = pair, self._batch(pair)
                stored, bounds = batch.tokens.data, batch.starts.data
                odd = batch.grid != grid or batch.tokens.dtype != tokens.dtype
                ids_end = max(ids_end, batch.ids_end)
            begin = bounds[row] + 1 + start * cells
            if odd or begin + span >= bounds[row + 1]:
                self._refuse_odd(batch, row, start, tokens.dtype)
            if cut.stride == 1:
                codes[to : to + size] = stored[begin : begin + size]
            else:
                frames = batch.tokens[begin : begin + span].reshape(cut.span, cells)
                codes[to : to + size] = frames[:: cut.stride].reshape(-1).data
        return ids_end

    def copy_pixels(self, places: Places, pixels: np.ndarray, lines: np.ndarray, patch: int) -> None:
        """Fills these lines of `pixels` uint8 [n, context, p·p·3] with the patches that the codes stand for, of clips
        whose ids were copied."""
        cells, cut, (height, width) = self._recipe.cells, self.cut, self._recipe.grid
        size, last = cut.frames * cells, -1
        shape = (-1, height * patch, width * patch, 3)
        for pair, row, start, line, column in self._clips(places, *self._slots(lines, size)):
            if pair != last:
                last, batch = pair, self._batch(pair)
            stored = batch.pixels(row)
            if stored is None or len(stored) != int(batch.n_frames[row]) * cells * patch * patch * 3:
                raise UserError(self._no_patches(patch))
            frames = stored.reshape(shape)[start : start + cut.span : cut.stride]
            patches = pixels[line, column : column + size]
            patches.reshape(cut.frames, cells, -1)[:] = to_patches(frames, patch)

    def windows(self, places: Places, j: int) -> list[Window]:
        """The clips of the j-th of these sequences, with rows and sources."""
        clips = zip(places.shards[j].tolist(), places.rows[j].tolist(), places.starts[j].tolist(), strict=True)
        cut = self.cut
        return [cut_window(self.dataset.shard_row(shard, row), at, cut.frames, cut.stride) for shard, row, at in clips]

    def where(self, row: Row) -> str:
        """A row for a message: dataset, source, run, view."""
        return f"{self.dataset.store.uri}: {row.source}, run {row.run}, view {row.view}"

    @cached_property
    def _order(self) -> Order:
        block = block_of(self.cut.hop * self._recipe.cells * self.dataset.views)
        return Order(self.entries.count, block, self._recipe.seed, self.part.name)

    def _jump(self, n: np.ndarray, first: int, last: int) -> Places:
        """As `find`, far from the last ones. Two jumps alike are taken for a share of every batch: the next ones are
        found, and the batches of the next asked for, while these are being read."""
        before, jump, ahead = self._jumps
        step = first - before
        known = [(start, places) for start, places in ahead if last < start + len(places.epochs)]
        if known and known[0][0] <= first:
            start, places = known.pop(0)
            places = places.take(n - start)
        else:
            places, known = self._find(n), []
        self.dataset.prefetch(places.pairs(0))  # many at a time, where they are far away
        if not known and abs(step - jump) <= MARGIN < step and last - first <= len(n) + MARGIN:
            known = self._next_jumps(first, last, step)
        if known:
            self.dataset.prefetch(known[0][1].pairs(0))
        self._jumps = first, step, known
        return places

    def _next_jumps(self, first: int, last: int, step: int) -> list[tuple[int, Places]]:
        """Number of the first sequence, and places, of what lies one, two … such steps ahead."""
        count = last - first + 1 + 2 * MARGIN
        firsts = [first + i * step - MARGIN for i in range(1, 1 + max(1, AT_ONCE // (count * self.per_sequence)))]
        places = self._find((np.array(firsts)[:, None] + np.arange(count)).reshape(-1))
        return [(start, places.take(slice(i * count, (i + 1) * count))) for i, start in enumerate(firsts)]

    def _look_ahead(self, first: int) -> list[tuple[int, Places]]:
        """Some times AHEAD sequences from the first on, as `_ahead` has them."""
        count = AHEAD * max(1, AT_ONCE // (AHEAD * self.per_sequence))
        places = self._find(np.arange(first, first + count))
        return [(first + i, places.take(slice(i, i + AHEAD))) for i in range(0, count, AHEAD)]

    def _announce(self, first: int, ahead: list[tuple[int, Places]]) -> None:
        """Asks for the batches of what comes next, in the background; at times again for what was too much at once."""
        asked = self._asked & {start for start, _ in ahead}
        if len(asked) < len(ahead) and not self._announced <= first < self._announced + AGAIN:
            self._announced = first
            for start, places in ahead:
                if start not in asked and self.dataset.prefetch(places.pairs(max(0, first - start))):
                    asked.add(start)
        self._asked = asked

    def _find(self, n: np.ndarray) -> Places:
        """The arithmetic of it. A run has one view and one phase an epoch."""
        clips = (n[:, None] * self.per_sequence + np.arange(self.per_sequence)).reshape(-1)
        epochs, entries = self._order.many(clips)
        shards, runs, k, slack = self.entries.many(entries)
        rows, starts = runs * self.dataset.views, k * self.cut.hop
        drawn = np.arange(len(clips)) if self.dataset.views > 1 else np.flatnonzero(slack)
        if len(drawn):
            places = (column[drawn] for column in (epochs, shards, runs))
            run_keys = keys(self._recipe.seed, "run", self.part.name, *places)
            if self.dataset.views > 1:
                rows += _drawn(run_keys, "view", self.dataset.views)
            starts[drawn] += _drawn(run_keys, "phase", slack[drawn] + 1)
        batches, inside = self._in_batches(shards, rows)
        shape = (len(n), self.per_sequence)
        columns = (column.reshape(shape) for column in (shards, rows, batches, inside, starts))
        return Places(epochs[:: self.per_sequence], *columns)

    def _in_batches(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [k] -> int64 [k] each: the record batches that rows of these shards are in, and their numbers there."""
        order, parts = sorted_runs(shards)
        ordered, found = rows[order], np.empty((2, len(rows)), np.int64)
        for shard, start, end in parts:
            bounds, rows = self._bounds(shard), ordered[start:end]
            found[0, start:end] = at = bounds.searchsorted(rows, side="right") - 1
            found[1, start:end] = rows - bounds[at]
        batches, inside = unsorted(found, order)
        return batches, inside

    def _count_rows(self, shard: int) -> np.ndarray:
        """int64 [batches + 1]: rows of a shard before each of its record batches, and of all of them."""
        return np.concatenate([_NONE, self.dataset.batch_ends(shard)])

    def _slots(self, lines: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each clip, the line it goes to and the number of its first code there; a clip has `size` codes."""
        return np.repeat(lines, self.per_sequence), np.tile(size * np.arange(self.per_sequence), len(lines))

    def _clips(self, places: Places, *columns: np.ndarray) -> Iterator[tuple[int, ...]]:
        """Of each clip the number of its record batch for `_batch`, its row there, its first frame, and what `columns`,
        int64 of a value a clip, have for it; clips of one record batch follow one another."""
        pairs = (places.shards << 32 | places.batches).reshape(-1)
        order = np.argsort(pairs, kind="stable")
        columns = (pairs, places.inside, places.starts, *columns)
        return zip(*(column.reshape(-1)[order].tolist() for column in columns), strict=True)

    def _batch(self, pair: int) -> Batch:
        return self.dataset.shard_batch(pair >> 32, pair & 0xFFFFFFFF)

    def _refuse_odd(self, batch: Batch, number: int, start: int, dtype: np.dtype) -> None:
        """UserError where a row has another grid, ids of another type, or fewer frames than its results say."""
        row = Row(batch, number, self.part.split)
        if start + self.cut.span > row.n_frames:
            raise UserError(f"{self.where(row)}: {counted(row.n_frames, 'frame')}, fewer than its source's results say")
        if (row.grid_h, row.grid_w) != self._recipe.grid:
            grid = f"{row.grid_h}×{row.grid_w}"
            raise UserError(f"{self.where(row)}: a grid of {grid} codes instead of {self._recipe.grid}")
        if batch.tokens.dtype != dtype:
            raise UserError(f"{self.where(row)}: ids of {batch.tokens.dtype} instead of {dtype}; tokenize it anew")

    def _no_patches(self, patch: int) -> str:
        kept, (height, width) = self.dataset.info["settings"].get("keep_pixels"), self._recipe.grid
        where, wanted = f"{self.part.name}: {self.dataset.store.uri}", patch * min(height, width)
        if not kept:
            return f"{where} keeps no pixels; tokenize it with keep_pixels: {wanted}"
        fitting = f"; patches of {kept // min(height, width)} would fit" if kept % min(height, width) == 0 else ""
        return (
            f"{where} keeps pixels of short side {kept}, but {height}×{width} patches of {patch} pixels, one a code, "
            f"take {wanted}{fitting}"
        )


def _joined(many: list[Places]) -> Places:
    return Places(*map(np.concatenate, zip(*many, strict=True)))


def _drawn(run_keys: np.ndarray, what: str, choices: int | np.ndarray) -> np.ndarray:
    """int64 [k]: a number below `choices` for each run."""
    return (keys(run_keys, what) % np.asarray(choices, np.uint64)).astype(np.int64)
