"""A part of a recipe with its dataset opened: where its n-th sequences lie, and their ids, for many n at once.

    n ─Order─▶ epoch, entry ─Entries─▶ shard, run ─keyed─▶ view, phase ─▶ row, first frame ─▶ batch ─▶ ids, pixels

All but the last arrow is arithmetic over whole arrays; the last one copies slices of mapped record batches. Reading
on from where one was has the arithmetic of the next `AHEAD` sequences done at once, their batches in the background.
A process of many, which reads every n-th batch, has its next one looked for ahead.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from toto.errors import UserError
from toto.lazy import cached_property
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
MARGIN = 8  # sequences by which the next jump may be longer or shorter: parts of a mixture take turns
AGAIN = 64  # sequences after which the next batches are asked for again
IMAGE = Cut(1, 1, 1)


class Places(NamedTuple):
    """Where sequences of one part lie: k clips each, one of a video, several of images."""

    epochs: np.ndarray  # int64 [n], of the first clip of each
    shards: np.ndarray  # int64 [n, k]
    rows: np.ndarray  # int64 [n, k]: of the shard
    batches: np.ndarray  # int64 [n, k]: record batches of the shard
    inside: np.ndarray  # int64 [n, k]: rows of the batch
    starts: np.ndarray  # int64 [n, k]: first frames, of the row

    def take(self, which: np.ndarray) -> "Places":
        """Those of these sequences, int64 [m]."""
        return Places(*(column[which] for column in self))

    def pairs(self, first: int) -> list[tuple[int, int]]:
        """(shard, batch) of every record batch that the sequences from `first` on need, in the order of need."""
        both = (self.shards[first:] << 32 | self.batches[first:]).reshape(-1)
        found = both[np.sort(np.unique(both, return_index=True)[1])]
        return list(zip((found >> 32).tolist(), (found & 0xFFFFFFFF).tolist(), strict=True))


class PartReader:
    """Finds and copies the sequences of one part."""

    def __init__(self, part: Part, dataset: Dataset, recipe: Recipe, index: Index | None = None) -> None:
        """`index` tells which rows count; None: all of the dataset."""
        self.part, self.dataset, self._recipe = part, dataset, recipe
        video = part.kind == "video"
        cut = stored_cut(dataset, recipe.frames, recipe.stride, recipe.hop) if video else None
        self.entries, self.cut = Entries(index or dataset, cut), cut or IMAGE
        self._batch_rows = lru_cache(maxsize=KNOWN_SHARDS)(self._count_rows)
        self.start_id = VIDEO_START if video else IMAGE_START
        self.per_sequence = 1 if video else recipe.images_per_sequence
        self._ahead: list[tuple[int, Places]] = []  # number of the first sequence, and where AHEAD of them lie
        self._last = self._announced = -1 - AHEAD
        self._asked: set[int] = set()  # those of `_ahead`, by first number, of which no batch was left out
        self._jumps: tuple[int, int, Places | None] = (0, 0, None)  # the last first number, how far it had come, ahead
        if self.entries.count < self.per_sequence:
            raise UserError(f"{part.name}: {dataset.store.uri} has nothing to read for it; make a recipe anew")

    def find(self, n: np.ndarray) -> Places:
        """int64 [k], k > 0: where the part's n-th sequences lie."""
        first, last = int(n.min()), int(n.max())
        reads_on, self._last = self._last < first <= self._last + AHEAD, last
        if last - first >= AHEAD or not reads_on:
            return self._jump(n, first, last)
        ahead = [known for known in self._ahead if known[0] + AHEAD > first]
        if not ahead or ahead[0][0] > first:
            ahead = [self._look_ahead(first)]
        while ahead[-1][0] <= last:
            ahead.append(self._look_ahead(ahead[-1][0] + AHEAD))
        self._ahead = ahead  # never changed in place: another thread may be reading it
        self._announce(first, ahead)
        start, places = ahead[0]
        if last < start + AHEAD:
            return places.take(n - start)
        return _joined([places for _, places in ahead]).take(n - start)

    def copy(self, places: Places, tokens: np.ndarray, lines: np.ndarray) -> int:
        """Fills these lines of `tokens` [n, context + 2], which lie one behind the other, with the ids of what was
        found; the highest `Batch.ids_end` of the record batches that they came from."""
        cells, cut = self._recipe.cells, self.cut
        size, span = cut.frames * cells, cut.span * cells
        tokens[lines, 0], tokens[lines, -1] = self.start_id, END
        to_line, to_column = self._slots(lines, size)
        to, codes = (to_line * tokens.shape[1] + 1 + to_column).tolist(), tokens.reshape(-1)
        clips = self._clips(places)
        for i, batch, row, start in clips:
            begin, at = batch.bounds[row] + 1 + start * cells, to[i]
            if cut.stride == 1:
                codes[at : at + size] = batch.tokens[begin : begin + size]
            else:
                frames = batch.tokens[begin : begin + span].reshape(cut.span, cells)
                codes[at : at + size].reshape(cut.frames, cells)[:] = frames[:: cut.stride]
        return max(batch.ids_end for _, batch, _, _ in clips)

    def copy_pixels(self, places: Places, pixels: np.ndarray, lines: np.ndarray, patch: int) -> None:
        """Fills these lines of `pixels` uint8 [n, context, p·p·3] with the patches that the codes stand for."""
        cells, cut, (height, width) = self._recipe.cells, self.cut, self._recipe.grid
        size = cut.frames * cells
        to_line, to_column = (places.tolist() for places in self._slots(lines, size))
        shape = (-1, height * patch, width * patch, 3)
        for i, batch, row, start in self._clips(places):
            stored = batch.pixels(row)
            if stored is None or len(stored) != int(batch.n_frames[row]) * cells * patch * patch * 3:
                raise UserError(self._no_patches(patch))
            frames = stored.reshape(shape)[start : start + cut.span : cut.stride]
            patches = pixels[to_line[i], to_column[i] : to_column[i] + size]
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
        """As `find`, far from the last ones. Two jumps alike are taken for a share of every batch: the next is found,
        and its batches asked for, while these are being read."""
        before, jump, ahead = self._jumps
        start = before + jump - MARGIN
        if ahead is not None and start <= first and last < start + len(ahead.epochs):
            places = ahead.take(n - start)
        else:
            places = self._find(n)
        self.dataset.prefetch(places.pairs(0))  # many at a time, where they are far away
        step, ahead = first - before, None
        if abs(step - jump) <= MARGIN < step and last - first <= len(n) + MARGIN:
            ahead = self._find(np.arange(first + step - MARGIN, last + step + MARGIN + 1))
            self.dataset.prefetch(ahead.pairs(0))
        self._jumps = first, step, ahead
        return places

    def _look_ahead(self, first: int) -> tuple[int, Places]:
        return first, self._find(np.arange(first, first + AHEAD))

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
            ends, facts = self._batch_rows(shard)
            found[:, start:end] = facts[:, ends.searchsorted(ordered[start:end], side="right")]
        found[1] = ordered - found[1]
        batches, inside = unsorted(found, order)
        return batches, inside

    def _count_rows(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """Of a shard's record batches: rows up to and with each, int64 [batches]; and int64 [2, batches]: their
        numbers, rows before each."""
        ends = self.dataset.batch_ends(shard)
        return ends, np.stack([np.arange(len(ends)), np.concatenate([[0], ends[:-1]])])

    def _slots(self, lines: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each clip, the line it goes to and the number of its first code there; a clip has `size` codes."""
        return np.repeat(lines, self.per_sequence), np.tile(size * np.arange(self.per_sequence), len(lines))

    def _clips(self, places: Places) -> list[tuple[int, Batch, int, int]]:
        """(number of the clip, its record batch, its row there, its first frame), those of one record batch together;
        UserError where a row is not what its source's results say."""
        pairs = (places.shards << 32 | places.batches).reshape(-1)
        order = np.argsort(pairs, kind="stable")
        columns = (column.reshape(-1)[order].tolist() for column in (pairs, places.inside, places.starts))
        cells, span, last, odd = self._recipe.cells, self.cut.span, -1, False
        found = []
        for i, pair, row, start in zip(order.tolist(), *columns, strict=True):
            if pair != last:
                last, batch = pair, self.dataset.shard_batch(pair >> 32, pair & 0xFFFFFFFF)
                bounds, odd = batch.bounds, odd or batch.grid != self._recipe.grid
            odd = odd or bounds[row + 1] - bounds[row] < (start + span) * cells + 2
            found.append((i, batch, row, start))
        if odd:
            self._refuse_odd(found)
        return found

    def _refuse_odd(self, clips: list[tuple[int, Batch, int, int]]) -> None:
        """UserError where a row has another grid, or fewer frames than its source's results say."""
        for _, batch, number, start in sorted(clips, key=lambda clip: clip[0]):
            row = Row(batch, number, self.part.split)
            if start + self.cut.span > row.n_frames:
                raise UserError(f"{self.where(row)}: {row.n_frames} frames, fewer than its source's results say")
            if (row.grid_h, row.grid_w) != self._recipe.grid:
                grid = f"{row.grid_h}×{row.grid_w}"
                raise UserError(f"{self.where(row)}: a grid of {grid} codes instead of {self._recipe.grid}")

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
