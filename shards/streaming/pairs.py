"""What a stream of pairs needs beside a stream of one dataset: which rows count, and what stands beside them.

Joined ─▶ PairIndex: rows of the left dataset that have a partner ─▶ windows, order and draws of the left one alone
places of the left dataset ─Joined.partners─▶ places of the right one, held against them ─▶ its ids, its pixels
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import xxhash

from toto.errors import UserError
from toto.shards.batch import Batch
from toto.shards.dataset import Dataset
from toto.shards.join import Joined
from toto.shards.recipe import Recipe
from toto.shards.row import windows_in
from toto.shards.streaming.alike import alike
from toto.shards.streaming.part_reader import PartReader, Places
from toto.shards.streaming.patches import to_patches

KNOWN_BATCHES = 256  # whose facts are kept: 88 bytes a row
NO_PARTNER = -1  # frames of a row that does not count: no window fits, and it is no image


class PairIndex:
    """The rows of the left dataset that have a partner, as `Entries` counts them."""

    def __init__(self, joined: Joined) -> None:
        self._joined, self._left = joined, joined.left
        rows = np.array([self._left.batch_ends(shard)[-1] for shard in range(len(self._left.image_counts()))], np.int64)
        paired = np.array([joined.paired(shard)[1].sum() for shard in range(len(rows))], np.int64)
        self._lacking = np.flatnonzero(paired < rows).tolist()  # shards some of whose rows do not count

    @property
    def views(self) -> int:
        """Rows of every run and image."""
        return self._left.views

    def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
        """int64 [shards]: windows in the rows of each shard that count."""
        counts = self._left.window_counts(frames, stride, hop).copy()
        for shard in self._lacking:
            lengths = self.row_lengths(shard)
            counts[shard] = windows_in(lengths[lengths > 0], frames, stride, hop).sum()
        return counts

    def image_counts(self) -> np.ndarray:
        """int64 [shards]: images of each shard that count."""
        counts = self._left.image_counts().copy()
        for shard in self._lacking:
            counts[shard] = (self.row_lengths(shard) == 0).sum()
        return counts

    def row_lengths(self, shard: int) -> np.ndarray:
        """int64: frames of each row of a shard, 0 for images, -1 for rows that do not count."""
        lengths = self._left.row_lengths(shard).astype(np.int64)
        edges = np.zeros(len(lengths) + 1, np.int64)
        firsts, counts = self._joined.paired(shard)
        np.add.at(edges, firsts, 1)
        np.add.at(edges, firsts + counts, -1)
        return np.where(np.cumsum(edges)[:-1] > 0, lengths, NO_PARTNER)


class Partner(PartReader):
    """Finds and copies what stands in the right dataset beside sequences of a part of the left one."""

    def __init__(self, left: PartReader, joined: Joined, recipe: Recipe, pixel_grid: tuple[int, int]) -> None:
        """`left` reads the left part, `recipe` has the right dataset's grid, `pixel_grid` how pixels become patches."""
        part, right = left.part, joined.right
        super().__init__(
            replace(part, uri=right.store.uri, dataset_id=right.dataset_id), right, replace(recipe, stride=None)
        )
        self.cut, self._joined, self._pixel_grid = left.cut, joined, pixel_grid
        self._left_facts, self._right_facts = _Facts(left.dataset), _Facts(right)  # not joined.left: it keeps its own

    def beside(self, places: Places) -> Places:
        """Where the partners of these rows lie."""
        shards, rows = self._joined.partners(places.shards.reshape(-1), places.rows.reshape(-1))
        batches, inside = self._in_batches(shards, rows)
        columns = {"shards": shards, "rows": rows, "batches": batches, "inside": inside}
        return places._replace(**{name: column.reshape(places.rows.shape) for name, column in columns.items()})

    def check(self, places: Places, found: Places) -> None:
        """UserError where what was found beside these rows is not of the same frames."""
        self.dataset.prefetch(found.pairs(0))
        wrong = (self._left_facts.of(places) != self._right_facts.of(found)).any(1)
        for i in np.flatnonzero(wrong).tolist():
            mine = self._joined.left.shard_row(int(places.shards.flat[i]), int(places.rows.flat[i]))
            other = self.dataset.shard_row(int(found.shards.flat[i]), int(found.rows.flat[i]))
            self._joined.check(mine, other)

    def copy_pixels(self, places: Places, pixels: np.ndarray, lines: np.ndarray, patch: int) -> None:
        """As of any part; where the rows have no codes of their own, a patch for each code of the left dataset."""
        if self._recipe.cells:
            return super().copy_pixels(places, pixels, lines, patch)
        height, width = self._pixel_grid
        cells, cut = height * width, self.cut
        size = cut.frames * cells
        to_line = np.repeat(lines, self.per_sequence).tolist()
        to_column = np.tile(size * np.arange(self.per_sequence), len(lines)).tolist()
        where = zip(places.inside.reshape(-1).tolist(), places.starts.reshape(-1).tolist(), strict=True)
        clips = list(where)
        for pair, which in alike((places.shards << 32 | places.batches).reshape(-1)):
            batch = self.dataset.shard_batch(pair >> 32, pair & 0xFFFFFFFF)
            for i in which.tolist():
                row, start = clips[i]
                stored, count = batch.pixels(row), int(batch.n_frames[row])
                if stored is None or len(stored) != count * cells * patch * patch * 3 or start + cut.span > count:
                    raise UserError(self._no_fitting(patch))
                frames = stored.reshape(count, height * patch, width * patch, 3)[start : start + cut.span : cut.stride]
                patches = pixels[to_line[i], to_column[i] : to_column[i] + size]
                patches.reshape(cut.frames, cells, -1)[:] = to_patches(frames, patch)
        return None

    def _no_fitting(self, patch: int) -> str:
        kept, (height, width) = self.dataset.info["settings"].get("keep_pixels"), self._pixel_grid
        return (
            f"{self.part.name}: {self.dataset.store.uri} keeps pixels of short side {kept}; {height}×{width} patches "
            f"of {patch} pixels take {patch * min(height, width)}"
        )


class _Facts:
    """What two rows must have in common, as numbers: row id, kind, frames and their numbers, crop."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._known = lru_cache(maxsize=KNOWN_BATCHES)(self._read)

    def of(self, places: Places) -> np.ndarray:
        """int64 [clips, 11]."""
        shards, batches, inside = (column.reshape(-1) for column in (places.shards, places.batches, places.inside))
        found = np.empty((len(inside), 11), np.int64)
        for pair, which in alike(shards << 32 | batches):
            found[which] = self._known(pair >> 32, pair & 0xFFFFFFFF)[inside[which]]
        return found

    def _read(self, shard: int, batch: int) -> np.ndarray:
        return _facts(self._dataset.shard_batch(shard, batch))


def _facts(batch: Batch) -> np.ndarray:
    """int64 [rows, 11]; lists of frame numbers as a hash."""
    table = batch.arrow
    ids = table.column("row_id")
    columns = [np.frombuffer(ids.buffers()[1], np.int64, 2 * len(ids), 16 * ids.offset).reshape(-1, 2)]
    numbers = ("kind", "n_frames", "frame0", "frame_step")
    columns += [table.column(name).to_numpy().astype(np.int64)[:, None] for name in numbers]
    columns += [table.column("crop").flatten().to_numpy().reshape(-1, 4), _hashes(table.column("frame_index"))[:, None]]
    return np.concatenate(columns, 1)


def _hashes(lists: pa.Array) -> np.ndarray:
    """int64 [rows]: of each list of numbers; 0 where there is none."""
    found = np.zeros(len(lists), np.int64)
    for i in np.flatnonzero(lists.is_valid().to_numpy(zero_copy_only=False)).tolist():
        found[i] = xxhash.xxh3_64_intdigest(lists[i].values.to_numpy().tobytes()) >> 1
    return found
