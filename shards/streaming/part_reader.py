"""A part of a recipe with its dataset opened: where its n-th sequences lie, and their ids, for many n at once.

    n ─Order─▶ epoch, entry ─Entries─▶ shard, run ─keyed─▶ view, phase ─▶ row, first frame ─▶ batch ─▶ ids, pixels

All but the last arrow is arithmetic over whole arrays; the last one copies slices of mapped record batches. Reading
on from where one was has the arithmetic of the next `AHEAD` sequences done at once, their batches in the background.
A process of many, which reads every n-th batch, has its next one looked for ahead.
"""

from typing import NamedTuple

import numpy as np

from toto.errors import UserError
from toto.lazy import cached_property
from toto.shards.batch import Batch
from toto.shards.dataset import Dataset
from toto.shards.ids import END, IMAGE_START, VIDEO_START
from toto.shards.recipe import Part, Recipe
from toto.shards.row import Row, Window, cut_window
from toto.shards.streaming.alike import alike
from toto.shards.streaming.keyed import keys
from toto.shards.streaming.order import Order, block_of
from toto.shards.streaming.patches import to_patches
from toto.shards.streaming.windows import Cut, Entries, stored_cut

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

    def __init__(self, part: Part, dataset: Dataset, recipe: Recipe) -> None:
        self.part, self.dataset, self._recipe = part, dataset, recipe
        video = part.kind == "video"
        cut = stored_cut(dataset, recipe.frames, recipe.stride, recipe.hop) if video else None
        self.entries, self.cut = Entries(dataset, cut), cut or IMAGE
        self.start_id = VIDEO_START if video else IMAGE_START
        self.per_sequence = 1 if video else recipe.images_per_sequence
        self._ahead: list[tuple[int, Places]] = []  # number of the first sequence, and where AHEAD of them lie
        self._last = self._announced = -1 - AHEAD
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

    def copy(self, places: Places, tokens: np.ndarray, lines: np.ndarray) -> None:
        """Fills these lines of `tokens` [n, context + 2] with the ids of what was found."""
        cells, cut = self._recipe.cells, self.cut
        size, span = cut.frames * cells, cut.span * cells
        tokens[lines, 0], tokens[lines, -1] = self.start_id, END
        codes = tokens[:, 1:-1]
        to_line, to_column = self._slots(lines, size)
        for batch, which, rows, starts in self._batches(places):
            begins, stored = batch.starts[rows] + 1 + starts * cells, batch.tokens
            for i, begin in zip(which.tolist(), begins.tolist(), strict=True):
                ids = codes[to_line[i], to_column[i] : to_column[i] + size]
                if cut.stride == 1:
                    ids[:] = stored[begin : begin + size]
                else:
                    frames = stored[begin : begin + span].reshape(cut.span, cells)
                    ids.reshape(cut.frames, cells)[:] = frames[:: cut.stride]

    def copy_pixels(self, places: Places, pixels: np.ndarray, lines: np.ndarray, patch: int) -> None:
        """Fills these lines of `pixels` uint8 [n, context, p·p·3] with the patches that the codes stand for."""
        cells, cut, (height, width) = self._recipe.cells, self.cut, self._recipe.grid
        size = cut.frames * cells
        to_line, to_column = self._slots(lines, size)
        shape = (-1, height * patch, width * patch, 3)
        for batch, which, rows, starts in self._batches(places):
            for i, row, start in zip(which.tolist(), rows.tolist(), starts.tolist(), strict=True):
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
        """Asks for the batches of what comes next, in the background; again at times: they may be too many at once."""
        if not self._announced <= first < self._announced + AGAIN:
            self._announced = first
            for start, places in ahead:
                self.dataset.prefetch(places.pairs(max(0, first - start)))

    def _find(self, n: np.ndarray) -> Places:
        """The arithmetic of it. A run has one view and one phase an epoch."""
        clips = (n[:, None] * self.per_sequence + np.arange(self.per_sequence)).reshape(-1)
        epochs, entries = self._order.many(clips)
        shards, runs, k, slack = self.entries.many(entries)
        rows, starts = runs * self.dataset.views, k * self.cut.hop
        if self.dataset.views > 1 or slack.any():
            run_keys = keys(self._recipe.seed, "run", self.part.name, epochs, shards, runs)
            if self.dataset.views > 1:
                rows += _drawn(run_keys, "view", self.dataset.views)
            starts += _drawn(run_keys, "phase", slack + 1)
        batches, inside = np.empty_like(rows), np.empty_like(rows)
        for shard, mine in alike(shards):
            ends = self.dataset.batch_ends(shard)
            batches[mine] = found = np.searchsorted(ends, rows[mine], side="right")
            inside[mine] = rows[mine] - np.where(found, ends[found - 1], 0)
        shape = (len(n), self.per_sequence)
        columns = (column.reshape(shape) for column in (shards, rows, batches, inside, starts))
        return Places(epochs[:: self.per_sequence], *columns)

    def _slots(self, lines: np.ndarray, size: int) -> tuple[list[int], list[int]]:
        """Of each clip, the line it goes to and the number of its first code there; a clip has `size` codes."""
        to_line = np.repeat(lines, self.per_sequence)
        return to_line.tolist(), np.tile(size * np.arange(self.per_sequence), len(lines)).tolist()

    def _batches(self, places: Places) -> list[tuple[Batch, np.ndarray, np.ndarray, np.ndarray]]:
        """Each record batch that is needed, which of the clips lie in it, their rows in it, their first frames."""
        flat = Places(*(column.reshape(-1) for column in places))
        read, facts = [], np.empty((3, len(flat.rows)), np.int64)
        for pair, which in alike(flat.shards << 32 | flat.batches):
            batch = self.dataset.shard_batch(pair >> 32, pair & 0xFFFFFFFF)
            rows = flat.inside[which]
            read.append((batch, which, rows, flat.starts[which]))
            facts[0, which], facts[1, which], facts[2, which] = (
                column[rows] for column in (batch.grid_h, batch.grid_w, batch.n_frames)
            )
        self._check(facts, flat)
        return read

    def _check(self, facts: np.ndarray, flat: Places) -> None:
        """UserError where a row has another grid, or fewer frames than its source's results say."""
        (height, width), short = self._recipe.grid, flat.starts + self.cut.span > facts[2]
        wrong = (facts[0] != height) | (facts[1] != width) | short
        if not wrong.any():
            return
        i = int(wrong.argmax())
        row = self.dataset.shard_row(int(flat.shards[i]), int(flat.rows[i]))
        if short[i]:
            raise UserError(f"{self.where(row)}: {row.n_frames} frames, fewer than its source's results say")
        raise UserError(f"{self.where(row)}: a grid of {row.grid_h}×{row.grid_w} codes instead of {self._recipe.grid}")

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
