"""Is this dataset whole? Reads what dataset.json names and says everything that is not as it was sealed.

    dataset.json ─▶ small files, manifest ─▶ units, some at a time, in several processes ─▶ no row twice, views ─▶ rest

quick   dataset.json against its own hash, every listed file there with its size, small files against their sha256
--deep  every listed file against its sha256, every batch against its hash, every row against the rules of the format

The manifest stays an Arrow table, and units become Python objects a task at a time: 10^6 units take 1 GB.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from toto.errors import UserError
from toto.shards.commit import FileRef
from toto.shards.hashing import has_content
from toto.shards.manifest import MANIFEST_SCHEMA, final_results, results_table
from toto.shards.parquet import read_table
from toto.shards.protocol_views import VIEWS_SCHEMA, source_labels, view_tables
from toto.shards.schema import SOURCES_SCHEMA
from toto.shards.snapshot import dataset_id, read_snapshot
from toto.shards.store import Store
from toto.shards.untrusted.annotation_rules import check_annotation
from toto.shards.untrusted.manifest_rules import check_manifest
from toto.shards.untrusted.row_rules import Rules
from toto.shards.verify.foreign import find_foreign
from toto.shards.verify.rows import RowIds
from toto.shards.verify.units import Checker, Findings, Unit, check_file
from toto.shards.workers import LostWorker, each

TASK_UNITS = 256  # at most, so that a million units are 4,000 tasks
TASK_BYTES = 64 << 20  # of shards that are read
Progress = Callable[[int, int, int], None]  # units done, units, bytes read


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

    def add(self, found: Findings) -> None:
        """Takes in what a part found."""
        self.files, self.bytes, self.rows = self.files + found.files, self.bytes + found.bytes, self.rows + found.rows
        self.problems += found.problems


def verify(
    store: Store, deep: bool = False, progress: Progress = lambda done, units, bytes: None, workers: int = 1
) -> Report:
    """Checks the current snapshot; never raises for damage, reports it, the same for any number of workers.

    UserError where a store does not answer. A unit at which a worker process dies is a problem like another.
    """
    report = Report()
    try:
        value = read_snapshot(store).value
        rules = Rules.of(value)
    except (UserError, ValueError) as error:
        report.problems.append(str(error))
        return report
    report.dataset_id = value["dataset_id"]
    small = _check_small_files(store, value, report)
    manifest = small[value["files"]["manifest"]["path"]]
    if manifest is None:
        return report
    _check_identity(value, manifest, report)
    row_ids = RowIds()
    tasks = _Tasks(manifest, _units_of_a_task(manifest, deep))
    checker = Checker(store, value["tokenizer"]["id"], rules, deep)
    done = 0
    for units, found in _each(checker, tasks, workers):
        report.add(found)
        row_ids.add(found.row_ids)
        done += len(units)
        progress(done, len(manifest), report.bytes)
    doubled = row_ids.doubled()
    if doubled:
        report.problems.append(f"{doubled} {'row stands' if doubled == 1 else 'rows stand'} more than once")
    if deep and report.ok:  # what follows from damage need not be told beside it
        _check_views(store, value, manifest, report)
    find_foreign(store, manifest, set(small), deep, report)
    return report


def _each(checker: Checker, tasks: "_Tasks", workers: int) -> Iterator[tuple[list[Unit], Findings]]:
    """Every task with what was found. Where a process dies, the task whose turn it was is looked at by itself."""
    done = 0
    while done < len(tasks):
        try:
            for units, found in each(partial(_same, checker), tasks.after(done), workers, apart=done > 0):
                done += 1
                yield units, found
        except LostWorker:
            yield tasks[done], _halved(checker, tasks[done])
            done += 1


def _halved(checker: Checker, units: list[Unit]) -> Findings:
    """What is wrong with these units, of which one may end the process that reads it: half of them at a time."""
    try:
        ((_, found),) = each(partial(_same, checker), [units], 1, apart=True)
        return found
    except LostWorker:
        if len(units) == 1:
            name = units[0]["path"] or units[0]["sources_path"]
            return Findings(1, problems=[f"{name}: whoever reads it dies, in a library or for want of memory"])
    first = _halved(checker, units[: len(units) // 2])
    first.add(_halved(checker, units[len(units) // 2 :]))
    return first


class _Tasks(Sequence[list[Unit]]):
    """The manifest in slices of some units, made Python objects when they are asked for."""

    def __init__(self, manifest: pa.Table, size: int) -> None:
        self._manifest, self._size = manifest, size

    def after(self, done: int) -> "_Tasks":
        """All but the first ones."""
        return _Tasks(self._manifest.slice(done * self._size), self._size) if done else self

    def __len__(self) -> int:
        return -(-len(self._manifest) // self._size)

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._manifest.slice(i * self._size, self._size).to_pylist()


def _same(checker: Checker) -> Checker:
    return checker


def _units_of_a_task(manifest: pa.Table, deep: bool) -> int:
    bytes_a_unit = sum(manifest["bytes"].to_pylist()) // max(1, len(manifest)) if deep else 0
    return max(1, min(TASK_UNITS, TASK_BYTES // max(1, bytes_a_unit)))


def _check_small_files(store: Store, value: dict[str, Any], report: Report) -> dict[str, pa.Table | None]:
    """Name of each file that dataset.json lists -> its table; None where it is none, or not as it was sealed."""
    files, found = value["files"], Findings()
    tables: dict[str, pa.Table | None] = {}
    schemas = {files["manifest"]["path"]: MANIFEST_SCHEMA, files["quarantine"]["path"]: SOURCES_SCHEMA}
    schemas |= {ref["path"]: VIEWS_SCHEMA for ref in files.get("views", {}).values()}
    for ref in listed(value):
        data = check_file(store, ref, True, found)
        tables[ref.path] = None
        if data is None or not ref.path.endswith(".parquet"):
            continue
        try:
            table = read_table(data, ref.path, schema=schemas.get(ref.path))
            is_manifest = ref.path == files["manifest"]["path"]
            tables[ref.path] = check_manifest(table, ref.path) if is_manifest else table
        except UserError as error:
            found.problems.append(str(error))
    for name, where in files["annotations"].items():
        table = tables[where["path"]]
        if table is None:
            continue
        if not has_content(table, value["annotations"].get(name)):
            found.problems.append(f"{where['path']}: content differs from what the dataset id was made of")
        try:
            check_annotation(table, name, where["path"])
        except UserError as error:
            found.problems.append(str(error))
    report.add(found)
    return tables


def listed(value: dict[str, Any]) -> list[FileRef]:
    """The files that a dataset.json names itself."""
    files = value["files"]
    refs = [files["manifest"], files["quarantine"], files["card"], *files["annotations"].values()]
    return [FileRef(**ref) for ref in [*refs, *files.get("views", {}).values(), *files["plans"]]]


def _check_identity(value: dict[str, Any], manifest: pa.Table, report: Report) -> None:
    try:
        expected = dataset_id(value["tokenizer"]["id"], value["settings"], _pairs(manifest), value["annotations"])
    except ValueError as error:
        report.problems.append(f"{value['files']['manifest']['path']}: {error}")
        return
    if expected != value["dataset_id"]:
        report.problems.append("dataset.json: the dataset id does not follow from the manifest")


def _pairs(manifest: pa.Table) -> Iterator[tuple[str, str]]:
    for part in manifest.select(["unit", "content_hash"]).to_batches(max_chunksize=TASK_UNITS):
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def _check_views(store: Store, value: dict[str, Any], manifest: pa.Table, report: Report) -> None:
    """Whether the tables of views are those that follow from the per-source results."""
    files = value["files"]
    if not files.get("views"):
        return
    paths = manifest["sources_path"].to_pylist()
    final = final_results([results_table(store.read(path), path) for path in paths])
    labels = files["annotations"].get("labels")
    known = source_labels(read_table(store.read(labels["path"]), labels["path"])) if labels else {}
    expected = view_tables(value["settings"], final, known)
    for name, ref in files["views"].items():
        if name not in expected or not read_table(store.read(ref["path"]), ref["path"]).equals(expected[name]):
            report.problems.append(f"{ref['path']}: does not follow from the per-source results")
