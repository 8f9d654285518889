"""A sealed snapshot, opened: rows by number, windows of frames, batches, labels, annotations.

    dataset.json -> manifest -> shard -> record batch (checked, inflated, cached) -> row -> window

Opening reads two small files. Which shard and batch hold row i, and how many windows there are, follows from the
manifest alone. Remote shards are read by byte ranges: the footer once, then single batches.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.lazy import cached_property
from toto.plain import counted
from toto.shards.batch import Batch
from toto.shards.batch_source import BatchSource
from toto.shards.cache.batches import open_cache, table_key
from toto.shards.cache.kept import Kept
from toto.shards.hashing import has_content
from toto.shards.join import Joined
from toto.shards.manifest import final_results, results_table, row_lengths
from toto.shards.protocols import beside_grid
from toto.shards.reader import DamagedShard
from toto.shards.row import Row, Window, cut_window, windows_in
from toto.shards.schema import SOURCES_SCHEMA, hash_of_key, hashes_of_keys
from toto.shards.sealed_files import SealedFiles
from toto.shards.snapshot import read_snapshot
from toto.shards.store import open_store
from toto.shards.unit_table import READ_AS, UnitTable, read_manifest
from toto.shards.untrusted.annotation_rules import check_annotation

KNOWN_SHARDS = 4_096  # whose row lengths are kept: 2 bytes a row
MANIFESTS: Kept[pa.Table] = Kept(16, 64 << 20, pa.Table.get_total_buffer_size)  # by hash and split, for all datasets


class Dataset:
    """Reads one snapshot of a token dataset; `split` restricts rows and windows, `id` opens an older snapshot.

    `cache_bytes` limits the cache of inflated batches on this disk, in place of TOTO_CACHE_BYTES; 0 is no cache.
    """

    def __init__(
        self, uri: str | Path, id: str | None = None, split: str | None = None, cache_bytes: int | None = None
    ) -> None:
        self._split, self._cache_bytes = split, cache_bytes
        self.store = open_store(uri)
        self.info = read_snapshot(self.store, id).value
        self._files = SealedFiles(self.store)
        self._manifest = self._read_manifest(split)
        self._chosen = set(self.info["splits"]) if split is None else {split}
        self._shards = self._unit_table()
        self._batches = BatchSource(self.store, self._shards, self.info["tokenizer"]["id"], cache_bytes)
        self._lengths: Kept[np.ndarray] = Kept(KNOWN_SHARDS)
        self._ends: dict[tuple[int, int, int | None], np.ndarray] = {}  # (frames, stride, hop) -> windows up to each

    def __reduce__(self) -> tuple[Any, ...]:
        """This very snapshot, whatever is sealed meanwhile and wherever the process that opens it works."""
        return Dataset, (self.store.uri, self.dataset_id, self._split, self._cache_bytes)

    def __len__(self) -> int:
        return int(self._shards.row_ends[-1]) if self._shards.count else 0

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
        return self.shard_row(*self._locate(self._shards.row_ends, i % len(self)))

    def shard_row(self, shard: int, offset: int) -> Row:
        """A row by the number of its shard in the manifest and its place there."""
        ends = self.batch_ends(shard)
        if not 0 <= offset < (ends[-1] if len(ends) else 0):
            raise IndexError(f"row {offset} of {self._batches.name(shard)}")
        batch, place = self._locate(ends, offset)
        return self._row(self.shard_batch(shard, batch), place, shard)

    def rows(self, shard: int | None = None) -> Iterator[Row]:
        """Every row, or those of one shard, in the order of the manifest; a few batches in memory at a time."""
        for number, _, batch in self.batches(shard):
            for i in range(batch.rows):
                yield self._row(batch, i, number)

    def batches(self, shard: int | None = None) -> Iterator[tuple[int, int, Batch]]:
        """(shard, number of the batch in it, batch) of every shard, or of one, in the order of the manifest.

        For reading all there is: nothing goes into the cache; of a remote dataset the next batches are fetched ahead.
        """
        return self._batches.every(range(self._shards.count) if shard is None else (shard,))

    def batch_ends(self, shard: int) -> np.ndarray:
        """int64 [batches]: rows of a shard up to and with each of its batches; from the manifest."""
        return self._shards.batch_ends(shard)

    def shard_batch(self, shard: int, batch: int) -> Batch:
        """A batch of a shard by number: one that this process has, or from the cache, or from the shard."""
        return self._batches.get(shard, batch)

    def prefetch(self, wanted: Sequence[tuple[int, int]]) -> bool:
        """Brings these batches (shard, batch) in the background, so that `shard_batch` finds them; never waits.

        At most 64 of about 128 MiB are on their way; False where that left some out, to be asked for again.
        """
        return self._batches.begin(wanted)

    def windows(self, frames: int, stride: int = 1, hop: int | None = None) -> int:
        """How many windows there are of `frames` frames, `stride` stored frames apart; the next one starts `hop` stored
        frames later, without overlap by default."""
        ends = self._window_ends(frames, stride, hop)
        return int(ends[-1]) if len(ends) else 0

    def window(self, i: int, frames: int = 16, stride: int = 1, hop: int | None = None) -> Window:
        """The i-th such window; no window crosses a run. IndexError when there are fewer."""
        ends = self._window_ends(frames, stride, hop)
        if not 0 <= i < (ends[-1] if len(ends) else 0):
            raise IndexError(
                f"window {i} of {self.windows(frames, stride, hop)} ({counted(frames, 'frame')}, stride {stride})"
            )
        shard, offset = self._locate(ends, i)
        per_row = np.cumsum(windows_in(self.row_lengths(shard), frames, stride, hop))
        row_in_shard, k = self._locate(per_row, offset)
        return cut_window(self.shard_row(shard, row_in_shard), k * (hop or frames * stride), frames, stride)

    def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
        """int64 [shards]: windows of the rows of each shard, `hop` stored frames from one start to the next."""
        if frames < 1 or stride < 1 or (hop is not None and hop < 1):
            raise ValueError(f"windows of {frames} frames, stride {stride}, hop {hop}: all must be at least 1")
        return self._shards.window_counts(frames, stride, hop)

    def image_counts(self) -> np.ndarray:
        """int64 [shards]: rows of each shard that are images."""
        return self._shards.image_counts()

    def longest_run(self) -> int:
        """Stored frames of the longest run of a video; 0 where there is none."""
        return self._shards.longest_run()

    def row_lengths(self, shard: int) -> np.ndarray:
        """uint16: frames of each row of a shard, 0 for images; no shard is opened.

        From the manifest where all rows are alike, else from the per-source results.
        """
        return self._lengths.get(shard, partial(self._read_lengths, shard))

    def frames(self, source: str) -> list[Row]:
        """Every row of one source (its runs and views); ValueError when the source has none."""
        found = [row for shard in self._shards_of(source) for row in self.rows(shard) if row.source == source]
        if not found:
            raise ValueError(f"no rows of source {source!r}")
        return sorted(found, key=lambda row: (row.run, row.view))

    def labels(self, table: str = "labels") -> dict[str, int]:
        """Source key -> label, from the annotations, which are the truth about labels."""
        labels = self.annotations(table)
        return dict(zip(labels["source"].to_pylist(), labels["label"].to_pylist(), strict=True))

    def annotations(self, name: str) -> pa.Table:
        """A table that was made from the dataset's own files; KeyError names the known ones."""
        files = self.info["files"]["annotations"]
        if name not in files:
            raise KeyError(f"no annotations {name!r} in {self.store.uri}; there are: {', '.join(files) or 'none'}")
        table = self._files.table(files[name])
        if not has_content(table, self.info["annotations"].get(name)):
            raise DamagedShard(files[name]["path"], "its content is not what was sealed")
        return check_annotation(table, name, f"{self.store.uri}/{files[name]['path']}")

    def protocol_views(self, protocol: str) -> pa.Table:
        """The clips of an evaluation protocol, one row for each clip and crop of a source (columns: VIEWS_SCHEMA), of
        the dataset's split where it has one. `positions` count in the row `row_id`; null where no row holds them all.
        KeyError names the known protocols."""
        files = self.info["files"].get("views", {})
        if protocol not in files:
            known = ", ".join(files) or "none"
            raise KeyError(f"no views of protocol {protocol!r} in {self.store.uri}; there are: {known}")
        table = self._files.table(files[protocol])
        return table.filter(pc.is_in(table["split"], pa.array(sorted(self._chosen), pa.string())))

    def sources(self) -> pa.Table:
        """What is known of every source, one row for each time it was tried (columns: SOURCES_SCHEMA)."""
        tables = list(self._files.results(self._manifest))
        return pa.concat_tables(tables) if tables else SOURCES_SCHEMA.empty_table()

    def shard_results(self) -> Iterator[tuple[int, pa.Table]]:
        """(shard, what is known of the sources of its unit) of every shard, sources in the order of their rows."""
        yield from enumerate(self._files.results(self._manifest.filter(pc.is_valid(self._manifest["path"]))))

    def join(self, other: "Dataset", on: str = "row_id") -> Joined:
        """The rows that both hold, side by side; UserError where they are not of the same frames."""
        return Joined(self, other, on)

    def quarantine(self) -> pa.Table:
        """The sources that gave no row, each with its reason."""
        results = final_results([self.sources()])
        return results.filter(pc.not_equal(results["status"], "ok"))

    def _read_lengths(self, shard: int) -> np.ndarray:
        lengths = self._shards.equal_lengths(shard)
        if lengths is None:
            path, sha256 = (self._shards.value(f"sources_{key}", shard) for key in ("path", "sha256"))
            name = f"{self.store.uri}/{path}"
            lengths = row_lengths(results_table(self._files.read(path, sha256), name))
            if not self._shards.tells(shard, lengths):
                raise DamagedShard(name, "tells of other rows than the manifest")
        return lengths

    def _row(self, batch: Batch, i: int, shard: int) -> Row:
        return Row(batch, i, self._shards.split(shard), self.info["settings"].get("keep_pixels"))

    def _read_manifest(self, split: str | None) -> pa.Table:
        if split is not None and split not in self.info["splits"]:
            known = ", ".join(self.info["splits"]) or "none"
            raise UserError(f"{self.store.uri} has no split {split!r}; it has: {known}")
        ref = self.info["files"]["manifest"]
        data, name = self._files.read(ref["path"], ref["sha256"]), f"{self.store.uri}/{ref['path']}"
        made = partial(read_manifest, data, name, split)
        kept = partial(open_cache(self._cache_bytes).table, table_key(READ_AS, ref["sha256"], split), made)
        return MANIFESTS.get((ref["sha256"], split), kept)

    def _unit_table(self) -> UnitTable:
        try:
            return UnitTable(self._manifest)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise UserError(f"{self.store.uri}: not a manifest that toto wrote ({str(error)[:160]})") from None

    def _shards_of(self, source: str) -> list[int]:
        """Shards whose unit tried this source, by a hash of its key: at times one too many."""
        hashes, shards = self._shards_by_source
        key = hash_of_key(source)
        first, last = (int(np.searchsorted(hashes, key, side)) for side in ("left", "right"))
        return sorted({int(shard) for shard in shards[first:last]})

    @cached_property
    def _shards_by_source(self) -> tuple[np.ndarray, np.ndarray]:
        """uint64 hashes of the keys of all sources, sorted, and int32 shard of each: 12 bytes a source."""
        hashes, shards = [np.empty(0, np.uint64)], [np.empty(0, np.int32)]
        for shard, results in self.shard_results():
            hashes.append(hashes_of_keys(results["key"].to_pylist()))
            shards.append(np.full(len(results), shard, np.int32))
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        return every[order], np.concatenate(shards)[order]

    def _window_ends(self, frames: int, stride: int, hop: int | None) -> np.ndarray:
        if (frames, stride, hop) not in self._ends:
            self._ends[frames, stride, hop] = np.cumsum(self.window_counts(frames, stride, hop))
        return self._ends[frames, stride, hop]

    @staticmethod
    def _locate(ends: np.ndarray, i: int) -> tuple[int, int]:
        """Which part holds item i, and its number inside it; `ends` are cumulative counts."""
        part = int(np.searchsorted(ends, i, side="right"))
        return part, i - (int(ends[part - 1]) if part else 0)
