"""A sealed snapshot, opened: rows by number, windows of frames, labels, annotations.

    dataset.json -> manifest -> shard -> record batch (inflated, checked, kept for a while) -> row -> window

Opening reads two small files. Which shard and batch hold row i, and how many windows there are, follows from the
manifest alone.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.shards.hashing import content_hash
from toto.shards.manifest import final_results
from toto.shards.parquet import read_parquet
from toto.shards.protocols import beside_grid
from toto.shards.reader import DamagedShard, ShardReader
from toto.shards.row import Row, Window, cut_window, windows_in
from toto.shards.schema import SOURCES_SCHEMA, RowRecord, batch_to_rows
from toto.shards.seal import file_ref
from toto.shards.snapshot import read_snapshot
from toto.shards.store import open_store

CACHED_BATCHES = 64  # about 512 KiB of tokens each
OPEN_SHARDS = 32
KNOWN_SHARDS = 4_096  # whose row lengths are kept: 2 bytes a row
PAUSES_S = (1.0, 5.0)  # between tries of a store that does not answer


class Dataset:
    """Reads one snapshot of a token dataset; `split` restricts rows and windows, `id` opens an older snapshot."""

    def __init__(self, uri: str | Path, id: str | None = None, split: str | None = None) -> None:
        self._arguments = (uri, id, split)
        self.store = open_store(uri)
        self.info = read_snapshot(self.store, id).value
        self._units = self._read_manifest(split)
        self._chosen = set(self.info["splits"]) if split is None else {split}
        self._manifest = self._units.filter(pc.is_valid(self._units["path"]))  # the units with a shard
        self._row_ends = np.cumsum([sum(rows) for rows in self._manifest["batch_rows"].to_pylist()], dtype=np.int64)
        self._paths: list[str] = self._manifest["path"].to_pylist()
        self._splits: list[str] = self._manifest["split"].to_pylist()
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()
        self._batches: OrderedDict[tuple[int, int], list[RowRecord]] = OrderedDict()
        self._lengths: OrderedDict[int, np.ndarray] = OrderedDict()
        self._ends: dict[tuple[int, int], np.ndarray] = {}  # (frames, stride) -> windows up to each shard

    def __reduce__(self) -> tuple[Any, ...]:
        return Dataset, self._arguments

    def __len__(self) -> int:
        return int(self._row_ends[-1]) if len(self._row_ends) else 0

    @property
    def dataset_id(self) -> str:
        """64 hex digits; the same content has the same id wherever and however it was made."""
        return str(self.info["dataset_id"])

    @property
    def tokenizer(self) -> dict[str, Any]:
        """What made the codes; `toto.tokenizers.load` turns it into a tokenizer."""
        return dict(self.info["tokenizer"])

    @property
    def views(self) -> int:
        """Crops of every run and image, mirrored ones too; their rows stand side by side."""
        return int(self.info["settings"].get("views") or 1)

    @property
    def base_views(self) -> int:
        """Views 0 … base_views - 1 are upright; with `flips` view base_views + v shows view v mirrored."""
        return self.views // 2 if self.info["settings"].get("flips") else self.views

    @property
    def stored_stride(self) -> int | None:
        """Decoded frames from one stored frame to the next; None where that is not one number in every row (frames
        by time, spread, named by annotations, or stored beside the grid for the clips of a protocol)."""
        settings = self.info["settings"]
        uneven = any(beside_grid(settings, split) for split in self._chosen)
        return None if uneven else settings.get("stride")

    @property
    def splits(self) -> list[str]:
        """Names of the splits."""
        return sorted(self.info["splits"])

    def row(self, i: int) -> Row:
        """The i-th row in the order of the manifest; IndexError when there are fewer."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"row {i} of {len(self)}")
        return self.shard_row(*self._locate(self._row_ends, i % len(self)))

    def shard_row(self, shard: int, offset: int) -> Row:
        """A row by the number of its shard in the manifest and its place there."""
        for batch, rows in enumerate(self._batch_rows[shard]):
            if offset < rows:
                return self._row(self._batch(shard, batch)[offset], shard)
            offset -= rows
        raise IndexError(f"{self._paths[shard]} has {sum(self._batch_rows[shard])} rows")

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of the manifest; one batch in memory at a time."""
        for shard in range(len(self._paths)):
            with self._open(shard) as reader:
                for batch in range(reader.batches):
                    for record in batch_to_rows(reader.batch(batch)):
                        yield self._row(record, shard)

    def windows(self, frames: int, stride: int = 1) -> int:
        """How many windows of `frames` frames, `stride` stored frames apart, follow one another without overlap."""
        ends = self._window_ends(frames, stride)
        return int(ends[-1]) if len(ends) else 0

    def window(self, i: int, frames: int = 16, stride: int = 1) -> Window:
        """The i-th such window; no window crosses a run. IndexError when there are fewer."""
        ends = self._window_ends(frames, stride)
        if not 0 <= i < (ends[-1] if len(ends) else 0):
            raise IndexError(f"window {i} of {self.windows(frames, stride)} ({frames} frames, stride {stride})")
        shard, offset = self._locate(ends, i)
        per_row = np.cumsum(windows_in(self.row_lengths(shard), frames, stride))
        row_in_shard, k = self._locate(per_row, offset)
        return cut_window(self.shard_row(shard, row_in_shard), k * frames * stride, frames, stride)

    def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
        """int64 [shards]: windows of the rows of each shard, `hop` stored frames from one start to the next."""
        if frames < 1 or stride < 1 or (hop is not None and hop < 1):
            raise ValueError(f"windows of {frames} frames, stride {stride}, hop {hop}: all must be at least 1")
        shards, lengths, rows = self._runs_by_length
        counts = windows_in(lengths, frames, stride, hop) * rows
        return np.bincount(shards, counts, len(self._manifest)).astype(np.int64)

    def image_counts(self) -> np.ndarray:
        """int64 [shards]: rows of each shard that are images."""
        return self._manifest["images"].to_numpy().astype(np.int64)

    def longest_run(self) -> int:
        """Stored frames of the longest run of a video; 0 where there is none."""
        return int(self._runs_by_length[1].max(initial=0))

    def row_lengths(self, shard: int) -> np.ndarray:
        """uint16: frames of each row of a shard, 0 for images: from the per-source results, no shard is opened."""
        if shard not in self._lengths:
            results = self._results(self._manifest.slice(shard, 1).to_pylist()[0])
            columns = (results[name].to_pylist() for name in ("kind", "run_lengths", "rows"))
            self._lengths[shard] = np.concatenate([row_lengths(*line) for line in zip(*columns, strict=True)])
            if len(self._lengths) > KNOWN_SHARDS:
                self._lengths.popitem(last=False)
        self._lengths.move_to_end(shard)
        return self._lengths[shard]

    def frames(self, source: str) -> list[Row]:
        """Every row of one source (its runs and views); ValueError when the source has none."""
        found = [row for shard in self._shards_of(source) for row in self._rows_of(shard, source)]
        if not found:
            raise ValueError(f"no rows of source {source!r}")
        return sorted(found, key=lambda row: (row.record.run, row.record.view))

    def labels(self, table: str = "labels") -> dict[str, int]:
        """Source key -> label, from the annotations, which are the truth about labels."""
        labels = self.annotations(table)
        return dict(zip(labels["source"].to_pylist(), labels["label"].to_pylist(), strict=True))

    def annotations(self, name: str) -> pa.Table:
        """A table that was made from the dataset's own files; KeyError names the known ones."""
        files = self.info["files"]["annotations"]
        if name not in files:
            raise KeyError(f"no annotations {name!r} in {self.store.uri}; there are: {', '.join(files) or 'none'}")
        table = read_parquet(self._checked(files[name]))
        if content_hash(table) != self.info["annotations"][name]:
            raise DamagedShard(files[name]["path"], "its content is not what was sealed")
        return table

    def protocol_views(self, protocol: str) -> pa.Table:
        """The clips of an evaluation protocol, one row for each clip and crop of a source (columns: VIEWS_SCHEMA), of
        the dataset's split where it has one. `positions` count in the row `row_id`; null where no row holds them all.
        KeyError names the known protocols."""
        files = self.info["files"].get("views", {})
        if protocol not in files:
            known = ", ".join(files) or "none"
            raise KeyError(f"no views of protocol {protocol!r} in {self.store.uri}; there are: {known}")
        table = read_parquet(self._checked(files[protocol]))
        return table.filter(pc.is_in(table["split"], pa.array(sorted(self._chosen), pa.string())))

    def sources(self) -> pa.Table:
        """What is known of every source, one row for each time it was tried (columns: SOURCES_SCHEMA)."""
        tables = [self._results(unit) for unit in self._units.to_pylist()]
        return pa.concat_tables(tables) if tables else SOURCES_SCHEMA.empty_table()

    def quarantine(self) -> pa.Table:
        """The sources that gave no row, each with its reason."""
        results = final_results([self.sources()])
        return results.filter(pc.not_equal(results["status"], "ok"))

    @cached_property
    def _batch_rows(self) -> list[list[int]]:
        return self._manifest["batch_rows"].to_pylist()

    def _row(self, record: RowRecord, shard: int) -> Row:
        return Row(record, self._splits[shard], self.info["settings"].get("keep_pixels"))

    def _read_manifest(self, split: str | None) -> pa.Table:
        table = read_parquet(self._checked(self.info["files"]["manifest"]))
        if split is not None:
            if split not in self.info["splits"]:
                known = ", ".join(self.info["splits"]) or "none"
                raise UserError(f"{self.store.uri} has no split {split!r}; it has: {known}")
            table = table.filter(pc.equal(table["split"], split))
        return table

    def _results(self, unit: dict[str, Any]) -> pa.Table:
        """The per-source results of one unit (a row of the manifest)."""
        ref = {"path": unit["sources_path"], "sha256": unit["sources_sha256"]}
        return read_parquet(self._checked(ref))

    def _checked(self, ref: dict[str, Any]) -> bytes:
        data = self._patiently(self.store.read, ref["path"])
        if file_ref(ref["path"], data).sha256 != ref["sha256"]:
            raise DamagedShard(f"{self.store.uri}/{ref['path']}", "the file is not as it was sealed")
        return data

    def _open(self, shard: int) -> ShardReader:
        name = self._paths[shard]
        reader = ShardReader(self._patiently(self.store.local_path, name), f"{self.store.uri}/{name}")
        self._check_facts(reader, shard)
        return reader

    def _patiently(self, get: Callable[[str], Any], name: str) -> Any:
        """What the store gives for this name, tried again where it does not answer; UserError with the name."""
        for pause_s in (*PAUSES_S, None):
            try:
                return get(name)
            except FileNotFoundError:
                raise DamagedShard(f"{self.store.uri}/{name}", "the file is missing") from None
            except (UserError, PermissionError):
                raise
            except Exception as error:  # an object store's own: time-outs, resets, refusals
                if pause_s is None:
                    reason = " ".join(str(error).split())[:200]
                    raise UserError(f"cannot read {self.store.uri}/{name} ({type(error).__name__}: {reason})") from None
                time.sleep(pause_s)
        raise AssertionError("the last try returns or raises")

    def _check_facts(self, reader: ShardReader, shard: int) -> None:
        if reader.batches != len(self._batch_rows[shard]):
            raise DamagedShard(reader.name, "another number of batches than the manifest says")
        if reader.metadata["tokenizer"]["id"] != self.info["tokenizer"]["id"]:
            raise DamagedShard(reader.name, "made with another tokenizer than the dataset says")

    def _batch(self, shard: int, batch: int) -> list[RowRecord]:
        key = (shard, batch)
        if key not in self._batches:
            if shard not in self._readers:
                self._readers[shard] = self._open(shard)
                if len(self._readers) > OPEN_SHARDS:
                    self._readers.popitem(last=False)[1].close()
            self._batches[key] = batch_to_rows(self._readers[shard].batch(batch))
            if len(self._batches) > CACHED_BATCHES:
                self._batches.popitem(last=False)
        self._batches.move_to_end(key)
        return self._batches[key]

    def _rows_of(self, shard: int, source: str) -> list[Row]:
        with self._open(shard) as reader:
            records = (r for b in range(reader.batches) for r in batch_to_rows(reader.batch(b)))
            return [self._row(record, shard) for record in records if record.source == source]

    def _shards_of(self, source: str) -> list[int]:
        """Shards whose unit tried this source; the per-source results are small beside the shards."""
        return self._shards_by_source.get(source, [])

    @cached_property
    def _shards_by_source(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for shard, unit in enumerate(self._manifest.to_pylist()):
            for key in self._results(unit)["key"].to_pylist():
                found.setdefault(key, []).append(shard)
        return found

    @cached_property
    def _runs_by_length(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each (shard, length of run): shard, length, rows; int64."""
        column = self._manifest["runs_by_length"].combine_chunks()
        shards = np.repeat(np.arange(len(column)), np.diff(column.offsets.to_numpy()))
        return shards, column.keys.to_numpy().astype(np.int64), column.items.to_numpy().astype(np.int64)

    def _window_ends(self, frames: int, stride: int) -> np.ndarray:
        if (frames, stride) not in self._ends:
            self._ends[frames, stride] = np.cumsum(self.window_counts(frames, stride))
        return self._ends[frames, stride]

    @staticmethod
    def _locate(ends: np.ndarray, i: int) -> tuple[int, int]:
        """Which part holds item i, and its number inside it; `ends` are cumulative counts."""
        part = int(np.searchsorted(ends, i, side="right"))
        return part, i - (int(ends[part - 1]) if part else 0)


def row_lengths(kind: str, run_lengths: list[int], rows: int) -> np.ndarray:
    """Frames of the rows of one source in their order: the views of a run are adjacent; 0 for images."""
    if kind == "image" or not rows:
        return np.zeros(rows, np.uint16)
    return np.repeat(np.array(run_lengths, np.uint16), rows // len(run_lengths))
