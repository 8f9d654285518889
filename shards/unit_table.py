"""What the manifest says of each shard, kept in Arrow's columns: no Python object until asked for.

300 bytes a shard, 4 a batch and 12 a length of runs.

Shards are numbered in the order of the manifest; units without a shard are not counted.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.lazy import cached_property
from toto.shards.manifest import MANIFEST_SCHEMA
from toto.shards.parquet import TableFile, naming_table
from toto.shards.row import windows_in
from toto.shards.untrusted.manifest_rules import check_manifest, one_chunk

COLUMNS = (
    "batch_rows",
    "runs_by_length",
    "path",
    "sha256",
    "sources_path",
    "sources_sha256",
    "rows",
    "bytes",
    "images",
)
READ_AS = ("manifest", 1, *COLUMNS)  # in the cache: another number where the rules for a manifest change
SHARDS_AT_ONCE = 1 << 16  # whose windows are counted together
SMALL_BYTES = 1 << 20  # of a manifest's file, whose columns are read together


def read_manifest(data: bytes, name: str, split: str | None = None) -> pa.Table:
    """What a reader needs of the manifest's file, of one split or all; UserError, naming it, where it is none.

    Of a large one, one column after the other: reading takes as much again as a column does.
    """
    at_once = len(COLUMNS) if len(data) < SMALL_BYTES else 1
    with naming_table(name):
        file = TableFile(data, MANIFEST_SCHEMA)
        splits = file.read(["split"])["split"]
        chosen = None if split is None else _is(splits, split)
        found = {"split": splits if chosen is None else splits.filter(chosen)}
        for start in range(0, len(COLUMNS), at_once):
            part = file.read(COLUMNS[start : start + at_once])
            for column in part.column_names:
                found[column] = part[column] if chosen is None else part[column].filter(chosen)
            del part
            pa.default_memory_pool().release_unused()
    return check_manifest(pa.table(found), name)


def _is(column: pa.ChunkedArray, text: str) -> pa.ChunkedArray:
    """Where a column without nulls has this value; not by Arrow's scalar of a Python value, for which it imports pandas
    where that is installed: 0.5 s."""
    value = next((value for value in column.unique() if value.as_py() == text), None)
    return pc.is_null(column) if value is None else pc.equal(column, value)


class UnitTable:
    """The rows of the manifest that have a shard; raises ValueError where one of them contradicts itself."""

    def __init__(self, manifest: pa.Table) -> None:
        if manifest["path"].null_count:
            manifest = manifest.filter(pc.is_valid(manifest["path"]))
        self._columns = {name: one_chunk(manifest[name]) for name in manifest.column_names}
        self.count = len(manifest)
        self._rows, self._images = (self._columns[name].to_numpy() for name in ("rows", "images"))
        self.row_ends = np.cumsum(self._rows, dtype=np.int64)
        self._batch_starts = self._columns["batch_rows"].offsets.to_numpy()
        self._batch_rows = self._columns["batch_rows"].values.to_numpy()
        self._run_starts = self._columns["runs_by_length"].offsets.to_numpy()
        self._run_lengths = self._columns["runs_by_length"].keys.to_numpy()

    def value(self, name: str, shard: int) -> Any:
        """A column of the manifest, of one shard; IndexError where there is none of that number."""
        self._check(shard)
        return self._columns[name][shard].as_py()

    def split(self, shard: int) -> str:
        """The split that a shard belongs to."""
        names, numbers = self._splits
        return names[numbers[shard]]

    def batch_ends(self, shard: int) -> np.ndarray:
        """int64 [batches]: rows of the shard up to and with each batch; IndexError where there is no such shard."""
        self._check(shard)
        first, last = self._batch_starts[shard : shard + 2]
        return np.cumsum(self._batch_rows[first:last], dtype=np.int64)

    def rows_of_batch(self, shard: int, batch: int) -> int | None:
        """Rows of a batch of a shard; None where the shard has no such batch."""
        first, last = int(self._batch_starts[shard]), int(self._batch_starts[shard + 1])
        return int(self._batch_rows[first + batch]) if 0 <= batch < last - first else None

    def equal_lengths(self, shard: int) -> np.ndarray | None:
        """uint16: frames of each row of the shard, 0 for images, where all are alike; else None."""
        self._check(shard)
        first, last = self._run_starts[shard : shard + 2].tolist()
        if last - first + (self._images[shard] > 0) != 1:
            return None
        return np.full(self._rows[shard], self._run_lengths[first] if last > first else 0, np.uint16)

    def tells(self, shard: int, lengths: np.ndarray) -> bool:
        """Whether the rows of a shard, of these frames each and 0 for images, are as many of each length as it says."""
        found, counts = (column.tolist() for column in np.unique(lengths, return_counts=True))
        told = {0: self.value("images", shard)} if self.value("images", shard) else {}
        for length, rows in self.value("runs_by_length", shard):
            told[length] = told.get(length, 0) + rows
        return dict(zip(found, counts, strict=True)) == {length: rows for length, rows in told.items() if rows}

    @cached_property
    def _splits(self) -> tuple[list[str], np.ndarray]:
        """Their names, and int32 [shards]: the number of the name of each shard's."""
        splits = self._columns["split"].dictionary_encode()
        return splits.dictionary.to_pylist(), splits.indices.to_numpy()

    @cached_property
    def batch_bytes(self) -> int:
        """Bytes of a batch as it is stored, on average; at least 1."""
        return 1 + int(self._columns["bytes"].to_numpy().sum()) // max(1, len(self._batch_rows))

    def image_counts(self) -> np.ndarray:
        """int64 [shards]: rows that are images."""
        return self._images.astype(np.int64)

    def window_counts(self, frames: int, stride: int, hop: int | None) -> np.ndarray:
        """int64 [shards]: windows of the rows of each shard (`windows_in`)."""
        found = np.zeros(self.count, np.int64)
        column = self._columns["runs_by_length"]
        for start in range(0, self.count, SHARDS_AT_ONCE):
            part = column[start : start + SHARDS_AT_ONCE]
            offsets = part.offsets.to_numpy()
            lengths, rows = (c[offsets[0] : offsets[-1]].to_numpy() for c in (column.keys, column.items))
            ends = np.cumsum(windows_in(lengths, frames, stride, hop) * rows.astype(np.int64))
            found[start : start + len(part)] = np.diff(np.concatenate([[0], ends])[offsets - offsets[0]])
        return found

    def _check(self, shard: int) -> None:
        if not 0 <= shard < self.count:
            raise IndexError(f"shard {shard} of {self.count}")

    def longest_run(self) -> int:
        """Stored frames of the longest run of a video; 0 where there is none."""
        return int(self._run_lengths.max(initial=0))
