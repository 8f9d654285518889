"""Is this dataset whole? Reads what dataset.json names and says everything that is not as it was sealed.

quick   dataset.json against its own hash, every listed file there with its size, small files against their sha256
--deep  every listed file against its sha256, every batch against its hash, every row against the rules of the format
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UserError
from toto.shards import ids
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, FileRef, committed_units, read_commits
from toto.shards.hashing import ContentHasher, content_hash
from toto.shards.parquet import read_parquet
from toto.shards.reader import ShardReader
from toto.shards.schema import RowRecord, batch_to_rows, row_id
from toto.shards.snapshot import dataset_id, read_snapshot
from toto.shards.store import Store

ROW_ID_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])


@dataclass
class Report:
    """What was checked and what is wrong; `leftovers` are files of interrupted runs, which do no harm."""

    dataset_id: str = ""
    files: int = 0
    bytes: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when nothing is wrong."""
        return not self.problems


def verify(store: Store, deep: bool = False, progress: Callable[[int, int], None] = lambda done, all: None) -> Report:
    """Checks the current snapshot; never raises for damage, reports it. `progress` gets (files done, files)."""
    report = Report()
    try:
        value = read_snapshot(store).value
    except UserError as error:
        report.problems.append(str(error))
        return report
    report.dataset_id = value["dataset_id"]
    small, manifest = _check_small_files(store, value, report)
    if manifest is None:
        return report
    units = manifest.to_pylist()
    _check_commits(store, value, units, report)
    row_ids: list[np.ndarray] = []
    for done, unit in enumerate(units):
        progress(done, len(units))
        row_ids += _check_unit(store, value, unit, deep, report)
    _check_uniqueness(row_ids, report)
    _find_foreign(store, small, report)
    return report


def _check_small_files(store: Store, value: dict[str, Any], report: Report) -> tuple[set[str], pa.Table | None]:
    files = value["files"]
    refs = [
        files["manifest"],
        files["quarantine"],
        files["card"],
        *files["annotations"].values(),
        *files["plans"],
    ]
    good = {ref["path"]: _check_file(store, FileRef(**ref), True, report) for ref in refs}
    for name, ref in files["annotations"].items():
        if good[ref["path"]]:
            table = read_parquet(store.read(ref["path"]))
            if content_hash(table) != value["annotations"][name]:
                report.problems.append(f"{ref['path']}: content differs from what the dataset id was made of")
    if not good[files["manifest"]["path"]]:
        return set(good), None
    return set(good), read_parquet(store.read(files["manifest"]["path"]))


def _check_file(store: Store, ref: FileRef, deep: bool, report: Report) -> bool:
    report.files += 1
    if not store.exists(ref.path):
        report.problems.append(f"{ref.path}: missing, or not a regular file")
        return False
    size = store.size(ref.path)
    report.bytes += size
    if size != ref.bytes:
        report.problems.append(f"{ref.path}: {size:,} bytes instead of {ref.bytes:,}")
        return False
    if deep and store.sha256(ref.path) != ref.sha256:
        report.problems.append(f"{ref.path}: sha256 differs; some of its bytes were changed")
        return False
    return True


def _check_commits(store: Store, value: dict[str, Any], units: list[dict[str, Any]], report: Report) -> None:
    pairs = [(unit["unit"], unit["content_hash"]) for unit in units]
    expected = dataset_id(value["tokenizer"]["id"], value["settings"], pairs, value["annotations"])
    if expected != value["dataset_id"]:
        report.problems.append("dataset.json: the dataset id does not follow from the manifest")
    for unit in units:
        report.files += 1
        try:
            (commit,) = read_commits(store, {unit["unit"]})
        except (FileNotFoundError, UserError) as error:
            report.problems.append(f"{COMMITS}/{unit['unit']}.json: missing or unreadable ({error})")
            continue
        if not _commit_agrees(commit, unit):
            report.problems.append(f"{COMMITS}/{unit['unit']}.json: says something else than the manifest")


def _commit_agrees(commit: Commit, unit: dict[str, Any]) -> bool:
    value = asdict(commit)
    shard = value["shard"] or {"path": None, "sha256": None, "bytes": 0}
    same = all(
        value[key] == unit[key] for key in ("unit", "split", "rows", "frames", "tokens", "content_hash", "batch_rows")
    )
    same &= all(shard[key] == unit[key] for key in ("path", "sha256", "bytes"))
    return same and all(value["sources"][key] == unit[f"sources_{key}"] for key in ("path", "sha256", "bytes"))


def _check_unit(
    store: Store, value: dict[str, Any], unit: dict[str, Any], deep: bool, report: Report
) -> list[np.ndarray]:
    """Checks the files of one unit; its row ids, when it was read whole."""
    _check_file(store, FileRef(unit["sources_path"], unit["sources_bytes"], unit["sources_sha256"]), deep, report)
    if unit["path"] is None:
        return []
    if not _check_file(store, FileRef(unit["path"], unit["bytes"], unit["sha256"]), deep, report):
        return []
    try:
        with ShardReader(store.local_path(unit["path"]), unit["path"]) as reader:
            if reader.metadata["tokenizer"]["id"] != value["tokenizer"]["id"]:
                report.problems.append(f"{unit['path']}: made with another tokenizer")
            return _check_rows(reader, value, unit, report) if deep else []
    except (UserError, OSError, KeyError) as error:
        report.problems.append(str(error).partition("; run ")[0])
        return []


def _check_rows(reader: ShardReader, value: dict[str, Any], unit: dict[str, Any], report: Report) -> list[np.ndarray]:
    hasher = ContentHasher(reader.schema)
    highest = value["tokenizer"]["vocab_size"] + ids.CODE_OFFSET
    row_ids = []
    for i in range(reader.batches):
        batch = reader.batch(i)
        hasher.update(batch)
        rows = batch_to_rows(batch)
        report.rows += len(rows)
        row_ids.append(np.frombuffer(b"".join(row.row_id for row in rows), ROW_ID_PAIR))
        for row in rows:
            report.problems += [f"{unit['path']}: {row.source} run {row.run}: {what}" for what in _faults(row, highest)]
    if hasher.hexdigest() != unit["content_hash"]:
        report.problems.append(f"{unit['path']}: content hash differs from the manifest's")
    return row_ids


def _faults(row: RowRecord, highest: int) -> Iterator[str]:
    if row.row_id != row_id(row.source, row.run, row.view):
        yield "row_id does not follow from source, run and view"
    tokens = row.tokens
    if len(tokens) != 2 + row.n_frames * row.grid_h * row.grid_w:
        yield f"{len(tokens)} ids for {row.n_frames} frames of {row.grid_h}×{row.grid_w}"
    elif row.kind not in (ids.KIND_VIDEO, ids.KIND_IMAGE) or tokens[0] != row.kind or tokens[-1] != ids.END:
        yield "start or end id is wrong"
    elif len(tokens) > 2 and not (ids.CODE_OFFSET <= tokens[1:-1].min() and tokens[1:-1].max() < highest):
        yield f"ids outside {ids.CODE_OFFSET}…{highest - 1}"


def _check_uniqueness(row_ids: list[np.ndarray], report: Report) -> None:
    """No row stands twice: 16 bytes a row, so all 41 M rows of the paper's data take 0.7 GB."""
    every = np.concatenate(row_ids) if row_ids else np.empty(0, ROW_ID_PAIR)
    doubled = len(every) - len(np.unique(every))
    if doubled:
        report.problems.append(f"{doubled} rows stand more than once")


def _find_foreign(store: Store, small: set[str], report: Report) -> None:
    """Files of units that were never committed: of a run that goes on, or was killed."""
    known = small | {name for commit in _readable_commits(store) for name in _files_of(commit)}
    for folder in (SHARDS, SOURCES):
        report.leftovers += [name for name in store.list(folder) if name not in known]


def _readable_commits(store: Store) -> Iterator[Commit]:
    for unit in sorted(committed_units(store)):
        try:
            yield from read_commits(store, {unit})
        except (UserError, FileNotFoundError):
            continue  # a sealed one is reported where the commits are checked


def _files_of(commit: Commit) -> list[str]:
    return [commit.sources.path, *([commit.shard.path] if commit.shard else [])]
