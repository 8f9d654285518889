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
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, FileRef, committed_units, read_commits
from toto.shards.hashing import content_hash
from toto.shards.manifest import final_results
from toto.shards.parquet import read_parquet
from toto.shards.protocol_views import VIEWS, source_labels, view_tables
from toto.shards.reader import ShardReader
from toto.shards.row_rules import ROW_ID_PAIR, read_rows, told_lengths
from toto.shards.snapshot import MANIFEST, dataset_id, parse_snapshot, read_snapshot
from toto.shards.store import Store

PLAN, ANNOTATIONS = "plan", "annotations"


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
    if deep and report.ok:  # what follows from damage need not be told beside it
        _check_views(store, value, units, report)
    _find_foreign(store, small, report)
    return report


def _check_small_files(store: Store, value: dict[str, Any], report: Report) -> tuple[set[str], pa.Table | None]:
    files = value["files"]
    refs = [
        files["manifest"],
        files["quarantine"],
        files["card"],
        *files["annotations"].values(),
        *files.get("views", {}).values(),
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
    sources = FileRef(unit["sources_path"], unit["sources_bytes"], unit["sources_sha256"])
    told = _check_file(store, sources, deep, report)
    if unit["path"] is None or not _check_file(
        store, FileRef(unit["path"], unit["bytes"], unit["sha256"]), deep, report
    ):
        return []
    try:
        with ShardReader(store.local_path(unit["path"]), unit["path"]) as reader:
            if reader.metadata["tokenizer"]["id"] != value["tokenizer"]["id"]:
                report.problems.append(f"{unit['path']}: made with another tokenizer")
            if not deep:
                return []
            found = read_rows(reader, value["tokenizer"]["vocab_size"])
    except (UserError, OSError, KeyError) as error:
        report.problems.append(str(error).partition("; run ")[0])
        return []
    report.rows += len(found.lengths)
    report.problems += [f"{unit['path']}: {fault}" for fault in found.faults]
    if found.content_hash != unit["content_hash"]:
        report.problems.append(f"{unit['path']}: content hash differs from the manifest's")
    if told and found.lengths != told_lengths(read_parquet(store.read(sources.path))):
        report.problems.append(f"{sources.path}: tells of other rows than the shard holds")
    return found.row_ids


def _check_uniqueness(row_ids: list[np.ndarray], report: Report) -> None:
    """No row stands twice: 16 bytes a row, so all 41 M rows of the paper's data take 0.7 GB."""
    every = np.concatenate(row_ids) if row_ids else np.empty(0, ROW_ID_PAIR)
    doubled = len(every) - len(np.unique(every))
    if doubled:
        report.problems.append(f"{doubled} rows stand more than once")


def _check_views(store: Store, value: dict[str, Any], units: list[dict[str, Any]], report: Report) -> None:
    """Whether the tables of views are those that follow from the per-source results."""
    files = value["files"]
    if not files.get("views"):
        return
    final = final_results([read_parquet(store.read(unit["sources_path"])) for unit in units])
    labels = files["annotations"].get("labels")
    known = source_labels(read_parquet(store.read(labels["path"]))) if labels else {}
    expected = view_tables(value["settings"], final, known)
    for name, ref in files["views"].items():
        if name not in expected or not read_parquet(store.read(ref["path"])).equals(expected[name]):
            report.problems.append(f"{ref['path']}: does not follow from the per-source results")


def _find_foreign(store: Store, small: set[str], report: Report) -> None:
    """Files that no snapshot and no commit names: leftovers of a run that goes on or was killed, unless they stand
    where a run would stumble over them."""
    commits = {f"{COMMITS}/{commit.unit}.json": commit for commit in _readable_commits(store)}
    known = small | set(commits) | {name for commit in commits.values() for name in _files_of(commit)}
    known |= {f"{PLAN}/canary.json", *_older_snapshots(store, report)}
    for folder in (SHARDS, SOURCES, ANNOTATIONS, VIEWS, PLAN, MANIFEST, COMMITS):
        for name in store.list(folder):
            if name in known or any(problem.startswith(name) for problem in report.problems):
                continue
            if folder == COMMITS or (name.endswith(".parquet") and not _readable_table(store, name)):
                report.problems.append(f"{name}: foreign, or damaged; no run of toto would have left it")
            else:
                report.leftovers.append(name)


def _older_snapshots(store: Store, report: Report) -> Iterator[str]:
    """Names of every snapshot in manifest/ and of what it names; damage is reported."""
    for name in (name for name in store.list(MANIFEST) if name.endswith(".json")):
        try:
            files = parse_snapshot(store.read(name), name).value["files"]
        except UserError as error:
            report.problems.append(str(error))
            continue
        yield name
        _check_file(store, FileRef(**files["manifest"]), True, report)
        named = [*files["annotations"].values(), *files.get("views", {}).values(), *files["plans"]]
        yield from (ref["path"] for ref in [files["manifest"], *named])


def _readable_table(store: Store, name: str) -> bool:
    try:
        read_parquet(store.read(name))
    except (pa.ArrowException, OSError):
        return False
    return True


def _readable_commits(store: Store) -> Iterator[Commit]:
    for unit in sorted(committed_units(store)):
        try:
            yield from read_commits(store, {unit})
        except (UserError, FileNotFoundError):
            continue  # a sealed one is reported where the commits are checked


def _files_of(commit: Commit) -> list[str]:
    return [commit.sources.path, *([commit.shard.path] if commit.shard else [])]
