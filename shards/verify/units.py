"""Some units of a manifest -> what is wrong with their commits and files. `verify` has many such tasks done at a time.

quick   commits agree with the manifest, files have their size, shards open and are of the dataset's tokenizer
deep    every byte of a shard is read once: its sha256, each batch's hash, the rules for rows, the content hash
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UserError
from toto.plain import counted
from toto.shards.batch import Batch
from toto.shards.commit import COMMITS, Commit, FileRef, parse_commit
from toto.shards.hashing import ContentHasher
from toto.shards.ids import KIND_IMAGE
from toto.shards.manifest import results_table, row_lengths
from toto.shards.reader import DamagedShard, ShardReader
from toto.shards.shard_file import open_shard_file
from toto.shards.snapshot import DATASET
from toto.shards.store import LocalStore, RemoteStore, Store
from toto.shards.untrusted.row_rules import Rules
from toto.shards.verify.read_once import ReadOnce

ROW_ID_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])
REQUESTS = 16  # at a time to an object store, for units of which little is read
Unit = dict[str, Any]  # a row of the manifest


@dataclass
class Findings:
    """What was checked, and what is wrong with it."""

    files: int = 0
    bytes: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    row_ids: list[np.ndarray] = field(default_factory=list)  # ROW_ID_PAIR, an array a batch

    def add(self, other: "Findings") -> None:
        """Takes in what another part found."""
        self.files, self.bytes, self.rows = self.files + other.files, self.bytes + other.bytes, self.rows + other.rows
        self.problems += other.problems
        self.row_ids += other.row_ids


@dataclass(frozen=True)
class Checker:
    """Checks units of one snapshot; pickled into the processes that do it."""

    store: Store
    tokenizer_id: str
    rules: Rules
    deep: bool

    def __call__(self, units: list[Unit]) -> Findings:
        """What is wrong with these units, in their order."""
        found = Findings(files=len(units))
        found.problems += self._check_commits(units)
        many = not (self.deep or isinstance(self.store, LocalStore))
        with ThreadPoolExecutor(REQUESTS) if many else nullcontext() as pool:
            for one in pool.map(self._check, units) if pool else map(self._check, units):
                found.add(one)
        return found

    def _check_commits(self, units: list[Unit]) -> Iterator[str]:
        names = [f"{COMMITS}/{unit['unit']}.json" for unit in units]
        for name, data, unit in zip(names, self._read_all(names), units, strict=True):
            try:
                if data is None:
                    yield f"{name}: missing, or not a regular file"
                elif not _agrees(parse_commit(data, name), unit):
                    yield f"{name}: says something else than the manifest"
            except UserError as error:
                yield str(error)

    def _read_all(self, names: list[str]) -> list[bytes | None]:
        """The bytes of small files; None where one is missing, or no regular file."""
        try:
            if not isinstance(self.store, LocalStore):
                return [*self.store.read_all(names)]
        except FileNotFoundError:
            pass  # which of them it is, is looked for one by one
        return [self.store.read(name) if self.store.exists(name) else None for name in names]

    def _check(self, unit: Unit) -> Findings:
        found = Findings()
        try:
            told = self._check_sources(unit, found)
            if unit["path"] is not None:
                self._check_shard(unit, told, found)
        except OSError as error:  # a disk that does not give what is on it
            found.problems.append(f"{unit['path'] or unit['sources_path']}: cannot be read ({error})")
        return found

    def _check_sources(self, unit: Unit, found: Findings) -> pa.Table | None:
        """The per-source results, when they were read and are as sealed."""
        ref = FileRef(unit["sources_path"], unit["sources_bytes"], unit["sources_sha256"])
        data = check_file(self.store, ref, self.deep, found)
        if data is None:
            return None
        try:
            return results_table(data, ref.path)
        except UserError as error:
            found.problems.append(str(error))
            return None

    def _check_shard(self, unit: Unit, told: pa.Table | None, found: Findings) -> None:
        name = unit["path"]
        if not _has_size(self.store, name, unit["bytes"], found):
            return
        with closing(ReadOnce(open_shard_file(self.store, name, unit["bytes"]))) as file:
            try:
                reader = ShardReader(file, name)
                if reader.metadata["tokenizer"]["id"] != self.tokenizer_id:
                    found.problems.append(f"{name}: made with another tokenizer")
                if any(reader.metadata.get(key) != unit[key] for key in ("unit", "split")):
                    found.problems.append(f"{name}: holds the rows of another unit")
                if self.deep:
                    self._check_rows(reader, unit, told, found)
            except (DamagedShard, KeyError, TypeError) as error:
                found.problems.append(str(error).partition("; run ")[0])
            if self.deep and self._sha256(file, name) != unit["sha256"]:
                found.problems.append(f"{name}: sha256 differs; some of its bytes were changed")

    def _sha256(self, file: ReadOnce, name: str) -> str:
        """Of what the store holds; a store that sends whole files only is asked, as its shard was read from a copy."""
        copied = isinstance(self.store, RemoteStore) and not self.store.gives_ranges(DATASET)
        return self.store.sha256(name) if copied else file.sha256()

    def _check_rows(self, reader: ShardReader, unit: Unit, told: pa.Table | None, found: Findings) -> None:
        """Every row of a shard; DamagedShard where a batch does not read back."""
        hasher, held, name = ContentHasher(reader.schema), _Held(told), unit["path"]
        for i in range(reader.batches):
            batch = Batch(reader.batch(i, hasher))
            found.problems += [f"{name}: {fault}" for fault in self.rules.wrong_ids(batch)]
            found.row_ids.append(_row_ids(batch))
            held.take(batch)
        found.rows += held.rows
        if hasher.hexdigest() != unit["content_hash"]:
            found.problems.append(f"{name}: content hash differs from the manifest's")
        if not held.as_told():
            found.problems.append(f"{unit['sources_path']}: tells of other rows than the shard holds")
        if not held.as_in(unit):
            found.problems.append(f"{name}: the manifest tells of other rows than it holds")


class _Held:
    """The rows that a shard turns out to hold, against those that its per-source results and the manifest tell of."""

    def __init__(self, results: pa.Table | None) -> None:
        self.rows = self._tokens = self._frames = self._images = 0
        self._batch_rows: list[int] = []
        self._runs: Counter[int] = Counter()
        self._sources, self._lengths, self._true = None, np.empty(0, np.int64), True
        if results is not None:
            places = np.repeat(np.arange(len(results)), results["rows"].combine_chunks().to_numpy())
            self._sources = results["key"].combine_chunks().take(pa.array(places))
            self._lengths = np.maximum(row_lengths(results), 1)  # an image has one

    def take(self, batch: Batch) -> None:
        """The next batch of the shard."""
        end = self.rows + batch.rows
        if self._sources is not None:
            self._true &= np.array_equal(self._lengths[self.rows : end], batch.n_frames)
            self._true &= self._sources.slice(self.rows, batch.rows).equals(batch.arrow.column("source"))
        videos = batch.n_frames[batch.kind != KIND_IMAGE]
        self._runs.update(videos.tolist())
        self._images += batch.rows - len(videos)
        self._tokens += len(batch.tokens)
        self._frames += int(batch.n_frames.sum(dtype=np.int64))
        self._batch_rows.append(batch.rows)
        self.rows = end

    def as_told(self) -> bool:
        """Whether the per-source results, where they can be read, tell of these rows in this order and no more."""
        return self._true and (self._sources is None or len(self._lengths) == self.rows)

    def as_in(self, unit: Unit) -> bool:
        """Whether the manifest's row counts them so."""
        mine = (self.rows, self._frames, self._tokens, self._images, self._batch_rows, self._runs)
        names = ("rows", "frames", "tokens", "images", "batch_rows")
        return mine == (*(unit[name] for name in names), dict(unit["runs_by_length"]))


def check_file(store: Store, ref: FileRef, deep: bool, found: Findings) -> bytes | None:
    """The bytes of a small file when `deep` and nothing is wrong with it; only its size is looked at otherwise."""
    if not _has_size(store, ref.path, ref.bytes, found) or not deep:
        return None
    data = store.read(ref.path)
    if hashlib.sha256(data).hexdigest() == ref.sha256:
        return data
    found.problems.append(f"{ref.path}: sha256 differs; some of its bytes were changed")
    return None


def _has_size(store: Store, name: str, expected: int, found: Findings) -> bool:
    found.files += 1
    if not store.exists(name):
        found.problems.append(f"{name}: missing, or not a regular file")
        return False
    size = store.size(name)
    found.bytes += size
    if size != expected:
        found.problems.append(f"{name}: {counted(size, 'byte')} instead of {expected:,}")
    return size == expected


def _agrees(commit: Commit, unit: Unit) -> bool:
    """Whether a commit says what the manifest says."""
    value = asdict(commit)
    shard = value["shard"] or {"path": None, "sha256": None, "bytes": 0}
    names = ("unit", "split", "rows", "frames", "tokens", "content_hash", "batch_rows")
    same = all(value[key] == unit[key] for key in names)
    same &= all(shard[key] == unit[key] for key in ("path", "sha256", "bytes"))
    return same and all(value["sources"][key] == unit[f"sources_{key}"] for key in ("path", "sha256", "bytes"))


def _row_ids(batch: Batch) -> np.ndarray:
    column = batch.arrow.column("row_id")
    return np.frombuffer(column.buffers()[1], ROW_ID_PAIR, len(column), 16 * column.offset).copy()
