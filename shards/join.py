"""Two datasets of the same sources and crops, row beside row: one tokenizer's codes beside another's, or beside pixels.

    per-source results of both ─▶ (hash of key, shard, first row, rows) of each source ─▶ pairs of row places ─▶ rows

Which rows have a partner follows from the per-source results, 36 bytes a source; rows are read one batch at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import xxhash

from toto.errors import UsageError, UserError
from toto.shards.ids import KIND_IMAGE
from toto.shards.row import Row, Window, cut_window, windows_in

if TYPE_CHECKING:
    from toto.shards.dataset import Dataset

# Settings that decide which frames a row holds and where they were cut; resolution and pixels do not.
OF_ROWS = ("stride", "fps", "uniform", "crop", "views", "flips", "run_frames", "min_frames", "protocols", "seed")


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
                if _has(self._keys, _hash(key)):
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
        _, at, there = np.intersect1d(mine.keys, theirs.keys, assume_unique=True, return_indices=True)
        order = np.lexsort((mine.first[at], mine.shard[at]))
        at, there = at[order], there[order]
        rows = np.minimum(mine.rows[at], theirs.rows[there])
        self._ends = np.cumsum(rows)
        self._places = np.stack([mine.shard[at], mine.first[at], theirs.shard[there], theirs.first[there]])
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
        return self._pair(source, inside)

    def rows(self) -> Iterator[tuple[Row, Row]]:
        """Every pair of rows."""
        for source, count in enumerate(np.diff(self._ends, prepend=0).tolist()):
            yield from (self._pair(source, inside) for inside in range(count))

    def windows(self, frames: int, stride: int = 1) -> Iterator[tuple[Window, Window]]:
        """Every window as `Dataset.window` cuts them, `frames` frames, `stride` stored ones apart, of both: the same
        frames in each. Images have none."""
        for left, right in self.rows():
            lengths = np.array([0 if left.kind == KIND_IMAGE else left.n_frames])
            for k in range(int(windows_in(lengths, frames, stride)[0])):
                start = k * frames * stride
                yield cut_window(left, start, frames, stride), cut_window(right, start, frames, stride)

    def _pair(self, source: int, inside: int) -> tuple[Row, Row]:
        shard, first, other_shard, other_first = (int(place) for place in self._places[:, source])
        left = self.left.shard_row(shard, first + inside)
        right = self.right.shard_row(other_shard, other_first + inside)
        for name in ("row_id", "n_frames", "frame0", "frame_step", "crop"):
            mine, theirs = getattr(left, name), getattr(right, name)
            if mine != theirs:
                shown = (mine.hex(), theirs.hex()) if isinstance(mine, bytes) else (mine, theirs)
                raise UserError(
                    f"{left.source}, run {left.run}, view {left.view}: {name} is {shown[0]} in {self.left.store.uri} "
                    f"and {shown[1]} in {self.right.store.uri}; tokenize both from the same files"
                )
        return left, right


class _Sources:
    """The sources of a dataset that have rows, by the hash of their key, ascending."""

    def __init__(self, dataset: "Dataset") -> None:
        columns: list[list[np.ndarray]] = [[np.empty(0, np.uint64)], *([np.empty(0, np.int64)] for _ in range(3))]
        for shard, results in dataset.shard_results():
            rows = results["rows"].to_numpy()
            used = np.flatnonzero(rows)
            keys = results["key"].take(pa.array(used)).to_pylist()
            found = (
                np.fromiter(map(_hash, keys), np.uint64, len(keys)),
                np.full(len(used), shard),
                (np.cumsum(rows) - rows)[used],
                rows[used],
            )
            for column, part in zip(columns, found, strict=True):
                column.append(part)
        keys, *others = (np.concatenate(column) for column in columns)
        self.keys, once = np.unique(keys, return_index=True)
        self.shard, self.first, self.rows = (column[once] for column in others)


def _missing(dataset: "Dataset", sources: _Sources, at: np.ndarray, paired: np.ndarray) -> Missing:
    left = sources.rows.copy()
    left[at] -= paired
    return Missing(int(left.sum()), dataset, sources.keys[left > 0])


def _check_alike(left: "Dataset", right: "Dataset") -> None:
    mine, theirs = left.info["settings"], right.info["settings"]
    for name in OF_ROWS:
        if (mine.get(name) or None) != (theirs.get(name) or None):
            raise UserError(
                f"{left.store.uri} and {right.store.uri} differ in {name}: {mine.get(name)} and {theirs.get(name)}; "
                "their rows are not the same frames"
            )


def _hash(key: str) -> int:
    return xxhash.xxh3_64_intdigest(key.encode())


def _has(keys: np.ndarray, wanted: int) -> bool:
    i = int(np.searchsorted(keys, np.uint64(wanted)))
    return i < len(keys) and int(keys[i]) == wanted
