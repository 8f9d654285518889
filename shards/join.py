"""Two datasets of the same sources and crops, row beside row: one tokenizer's codes beside another's, or beside pixels.

    per-source results of both ─▶ (hash of key, shard, first row, rows) of each source ─▶ pairs of row places ─▶ rows

Which rows have a partner follows from the per-source results, 40 bytes a source; rows are read one batch at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from toto.errors import UsageError, UserError
from toto.shards.ids import KIND_IMAGE
from toto.shards.reader import DamagedShard
from toto.shards.row import Row, Window, cut_window, windows_in
from toto.shards.schema import hash_of_key, hashes_of_keys
from toto.shards.streaming.alike import alike

if TYPE_CHECKING:
    from toto.shards.dataset import Dataset

# Settings that decide which frames a row holds and where they were cut; resolution and pixels do not.
OF_ROWS = (
    "stride",
    "fps",
    "uniform",
    "crop",
    "views",
    "flips",
    "run_frames",
    "most_frames",
    "min_frames",
    "protocols",
    "seed",
)
AHEAD = 32  # sources whose batches of the right dataset are asked for at once
AGAIN = 0x9E3779B97F4A7C15  # sets the entries of one key apart


@dataclass(frozen=True)
class Missing:
    """Rows of one of the two that have no partner in the other."""

    rows: int
    dataset: "Dataset"
    _keys: np.ndarray  # uint64: hashes of the keys of their sources, ascending

    def sources(self) -> Iterator[str]:
        """The keys of their sources, shard after shard."""
        for _, results in self.dataset.shard_results():
            for key in results["key"].to_pylist():
                if _has(self._keys, hash_of_key(key)):
                    yield key


class Joined:
    """The rows that both datasets hold, in the order of the left one.

    UserError where the two were not made from the same frames; while reading, where two rows of one id differ.
    """

    def __init__(self, left: "Dataset", right: "Dataset", on: str = "row_id") -> None:
        if on != "row_id":
            raise UsageError(f"join on {on!r}; rows of two datasets are paired by their row_id")
        _check_alike(left, right)
        self.left, self.right = left, right
        mine, theirs = _Sources(left), _Sources(right)
        _, at, there = np.intersect1d(mine.ids, theirs.ids, assume_unique=True, return_indices=True)
        order = np.lexsort((mine.first[at], mine.shard[at]))
        at, there = at[order], there[order]
        rows = np.minimum(mine.rows[at], theirs.rows[there])
        self._counts, self._ends = rows, np.cumsum(rows)
        self._places = np.stack([mine.shard[at], mine.first[at], theirs.shard[there], theirs.first[there]])
        self._starts = self._places[0] << 32 | self._places[1]  # ascending
        self.missing_right = _missing(left, mine, at, rows)  # rows of the left dataset that the right one lacks
        self.missing_left = _missing(right, theirs, there, rows)

    def __len__(self) -> int:
        """Pairs of rows."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def row(self, i: int) -> tuple[Row, Row]:
        """The i-th pair; IndexError when there are fewer."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"pair {i} of {len(self)}")
        i %= len(self)
        source = int(np.searchsorted(self._ends, i, side="right"))
        inside = i - (int(self._ends[source - 1]) if source else 0)
        shard, first = self._places[:2, source].tolist()
        return self._checked(self.left.shard_row(shard, first + inside), source, inside)

    def paired(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 [sources] each: the first rows of a shard of the left dataset that have partners, and how many from
        each of them on."""
        first, last = np.searchsorted(self._places[0], (shard, shard + 1))
        return self._places[1, first:last], self._counts[first:last]

    def partners(self, shards: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [n] each: shards and rows of the right dataset, for rows of the left one that have a partner."""
        source = np.searchsorted(self._starts, shards << 32 | rows, side="right") - 1
        return self._places[2, source], self._places[3, source] + rows - self._places[1, source]

    def rows(self) -> Iterator[tuple[Row, Row]]:
        """Every pair of rows. The left dataset is read from its first batch to its last, past the cache; the right
        one's batches are asked for ahead."""
        counts = self._counts.tolist()
        for shard, sources in alike(self._places[0]):
            rows = enumerate(self.left.rows(shard))
            for number, source in enumerate(sources.tolist()):
                if number % AHEAD == 0:
                    self._prefetch(sources[number : number + AHEAD])
                for inside in range(counts[source]):
                    place = self._places[1, source] + inside
                    yield self._checked(next(row for at, row in rows if at == place), source, inside)

    def windows(self, frames: int, stride: int = 1) -> Iterator[tuple[Window, Window]]:
        """Every window as `Dataset.window` cuts them, `frames` frames, `stride` stored ones apart, of both: the same
        frames in each. Images have none."""
        for left, right in self.rows():
            lengths = np.array([0 if left.kind == KIND_IMAGE else left.n_frames])
            for k in range(int(windows_in(lengths, frames, stride)[0])):
                start = k * frames * stride
                yield cut_window(left, start, frames, stride), cut_window(right, start, frames, stride)

    def _prefetch(self, sources: np.ndarray) -> None:
        """Has the right dataset's batches of these sources' first rows brought."""
        places = [(shard, int(first)) for shard, first in self._places[2:, sources].T.tolist()]
        wanted = [(shard, int(np.searchsorted(self.right.batch_ends(shard), at, side="right"))) for shard, at in places]
        self.right.prefetch(list(dict.fromkeys(wanted)))

    def _checked(self, left: Row, source: int, inside: int) -> tuple[Row, Row]:
        """A row and its partner, the `inside`-th of its source."""
        shard, first = self._places[2:, source].tolist()
        right = self.right.shard_row(shard, first + inside)
        self.check(left, right)
        return left, right

    def check(self, left: Row, right: Row) -> None:
        """UserError where two rows are not of the same frames."""
        for name in ("row_id", "kind", "n_frames", "frame0", "frame_step", "frame_index", "crop"):
            mine, theirs = getattr(left, name), getattr(right, name)
            if name == "frame_index":
                mine, theirs = _first_other(mine, theirs)
            if mine != theirs:
                shown = (mine.hex(), theirs.hex()) if isinstance(mine, bytes) else (mine, theirs)
                raise UserError(
                    f"{left.source}, run {left.run}, view {left.view}: {name} is {shown[0]} in {self.left.store.uri} "
                    f"and {shown[1]} in {self.right.store.uri}; tokenize both from the same files"
                )


class _Sources:
    """The sources of a dataset that have rows, by the hash of their key, ascending; a key may be in several splits."""

    def __init__(self, dataset: "Dataset") -> None:
        columns: list[list[np.ndarray]] = [[np.empty(0, np.uint64)], *([np.empty(0, np.int64)] for _ in range(4))]
        for shard, results in dataset.shard_results():
            rows = results["rows"].combine_chunks().to_numpy()
            if int(rows.sum()) != dataset.batch_ends(shard)[-1] or (rows % dataset.views).any():
                raise DamagedShard(dataset.store.uri, f"the results of shard {shard} tell of other rows than it has")
            used = np.flatnonzero(rows)
            splits = results["split"].take(pa.array(used)).to_pylist()
            found = (
                hashes_of_keys(results["key"].take(pa.array(used)).to_pylist()),
                np.array([dataset.splits.index(split) for split in splits], np.int64),
                np.full(len(used), shard),
                (np.cumsum(rows) - rows)[used],
                rows[used],
            )
            for column, part in zip(columns, found, strict=True):
                column.append(part)
        keys, splits, *others = (np.concatenate(column) for column in columns)
        order = np.lexsort((splits, keys))
        self.keys = keys[order]
        self.shard, self.first, self.rows = (column[order] for column in others)
        again = np.arange(len(keys)) - np.searchsorted(self.keys, self.keys)  # how often the key came before
        self.ids = self.keys + np.uint64(AGAIN) * again.astype(np.uint64)


def _missing(dataset: "Dataset", sources: _Sources, at: np.ndarray, paired: np.ndarray) -> Missing:
    left = sources.rows.copy()
    left[at] -= paired
    return Missing(int(left.sum()), dataset, np.unique(sources.keys[left > 0]))


def _check_alike(left: "Dataset", right: "Dataset") -> None:
    mine, theirs = left.info["settings"], right.info["settings"]
    for name in OF_ROWS:
        if (mine.get(name) or None) != (theirs.get(name) or None):
            raise UserError(
                f"{left.store.uri} and {right.store.uri} differ in {name}: {mine.get(name)} and {theirs.get(name)}; "
                "their rows are not the same frames"
            )


def _first_other(mine: np.ndarray, theirs: np.ndarray) -> tuple[int, int]:
    """The first two of as many numbers that differ; of the last ones where none do."""
    i = int(np.argmax(mine != theirs))
    return int(mine[i]), int(theirs[i])


def _has(keys: np.ndarray, wanted: np.uint64) -> bool:
    i = int(np.searchsorted(keys, wanted))
    return i < len(keys) and bool(keys[i] == wanted)
