"""Plans: append-only lists of units under plan/0001.parquet, 0002… Each holds only sources that no earlier one holds.

    listing ─ keys already planned ─▶ new sources ─ estimate frames ─▶ units ─▶ plan/000N.parquet (created exclusively)

The first plan fixes the settings that decide content; a later run with others is refused. What a plan holds never
changes, so new files and --limit never change a unit that exists.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UsageError
from toto.shards.annotation_file import write_annotation
from toto.shards.commit import FileRef
from toto.shards.hashing import json_sha256
from toto.shards.parquet import parquet_bytes
from toto.shards.schema import FORMAT_VERSION
from toto.shards.seal import Annotation, DatasetSpec, file_ref
from toto.shards.store import Store
from toto.tokenize.annotations import planned_tables, unchanged, with_known_classes
from toto.tokenize.crash import reached
from toto.tokenize.job import Job
from toto.tokenize.plan_table import PlanRows, plan_table, read_plan
from toto.tokenize.planned import MOMENTS, PlannedRows, PlannedSource, differ, planned_rows
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.units import Unit, cut_units
from toto.uris import shown

FOLDER = "plan"
ROWS_AT_ONCE = 65_536
Estimate = Callable[[SourceTable], Sequence[int] | np.ndarray]


@dataclass(frozen=True)
class Plans:
    """All plans of a target, read in order."""

    units: dict[str, Unit]  # in the order in which they were planned
    rows: list[PlanRows]  # what the units are slices of, plan by plan
    files: list[FileRef]
    annotations: dict[str, Annotation]  # of the newest plan
    root: str | None  # where the newest plan's sources lay
    settings: dict[str, Any] | None  # of the first plan; None when there is none
    tokenizer: dict[str, Any] | None

    def holds(self, listed: SourceTable) -> np.ndarray:
        """bool [n]: which listed sources some plan holds."""
        found = np.zeros(len(listed), bool)
        for plan in self.rows:
            at = listed.by_key.rows(plan.sources.keys)
            found[at[at >= 0]] = True
        return found

    def latest(self) -> Iterator[PlannedRows]:
        """Every source as it was planned last, in the order of the plans, some at a time."""
        again = [
            zip(plan.sources.where(late).keys.to_pylist(), plan.attempts[late].tolist(), strict=True)
            for plan in self.rows
            if (late := plan.attempts > 0).any()
        ]
        last = dict(chain.from_iterable(again))
        for plan in self.rows:
            for start in range(0, len(plan.sources), ROWS_AT_ONCE):
                end = start + ROWS_AT_ONCE
                part, attempts = plan.sources[start:end], plan.attempts[start:end]
                if last:
                    newest = np.array([last.get(key, 0) for key in part.keys.to_pylist()])
                    part = part.where(newest == attempts)
                yield part

    def changed(self, listed: SourceTable, names: Sequence[str]) -> Iterator[tuple[PlannedRows, np.ndarray]]:
        """Planned sources that differ from the listed ones in one of these columns, and the rows of these."""
        for part in self.latest():
            at = listed.by_key.rows(part.keys)
            part, at = part.where(at >= 0), at[at >= 0]
            other = differ(part, listed.take(at), names)
            yield part.where(other), at[other]

    @property
    def sources(self) -> int:
        """How many sources the plans hold: each is planned once for its first attempt."""
        return sum(int((plan.attempts == 0).sum()) for plan in self.rows)

    def spec(self, job: Job) -> DatasetSpec:
        """What a seal needs."""
        return DatasetSpec(
            job.name,
            self.tokenizer or job.tokenizer,
            self.settings or job.settings,
            self.annotations,
            self.files,
            frozenset(self.units),
            self.sources,
        )


def read_plans(store: Store) -> Plans:
    """The plans of a target; empty when it has none."""
    units: dict[str, Unit] = {}
    rows, files, annotations = [], [], {}
    first: dict[str, Any] | None = None
    root = None
    for name in (name for name in store.list(FOLDER) if name.endswith(".parquet")):
        data = store.read(name)
        plan = read_plan(data, store.uri, name)
        first, root = first or plan.facts, shown(plan.facts["root"])
        annotations = {
            key: Annotation(FileRef(**a["file"]), a["content_hash"]) for key, a in plan.facts["annotations"].items()
        }
        units.update((unit.id, unit) for unit in plan.units)
        rows.append(plan)
        files.append(file_ref(name, data))
    settings, tokenizer = (first["settings"], first["tokenizer"]) if first else (None, None)
    return Plans(units, rows, files, annotations, root, settings, tokenizer)


def refuse_other_settings(plans: Plans, job: Job, where: str) -> None:
    """Raises UsageError when the target was planned with settings that give other rows."""
    if plans.settings is None:
        return
    for key in {**job.settings, **plans.settings}:
        fixed, value = plans.settings.get(key), job.settings.get(key)
        if fixed != value:
            raise UsageError(
                f"{where} was planned with {key} = {fixed!r}, this run has {value!r}; "
                f"use the same value, or another --out for a new dataset"
            )
    if plans.tokenizer is None or plans.tokenizer["id"] != job.tokenizer["id"]:
        raise UsageError(
            f"{where} was planned with tokenizer {_describe(plans.tokenizer)}, "
            f"this run has {_describe(job.tokenizer)}; use the same one, or another --out for a new dataset"
        )


def extend_plans(store: Store, job: Job, listing: Listing, estimate: Estimate, limit: int | None) -> Plans:
    """Plans what is new in a listing (of its first `limit` sources); returns all plans. Safe against other planners."""
    while True:
        plans = read_plans(store)
        refuse_other_settings(plans, job, store.uri)
        listing = with_known_classes(store, plans.annotations, listing)
        listed = SourceTable.of(listing.sources)
        known = plans.holds(listed)
        _refuse_other_folder(plans, known, job, store.uri)
        first = np.arange(len(listed)) < (len(listed) if limit is None else limit)
        fresh = listed.where(first & ~known)
        tables = planned_tables(store, plans.annotations, listing, ~first & ~known, _moved(plans, listed))
        if not len(fresh) and plans.files and unchanged(tables, plans.annotations):
            return plans
        units = list(cut_units(planned_rows(fresh, estimate(fresh)), job.cells * _views(job), _identity(job)))
        if _create(store, job, plans, units, tables):
            return read_plans(store)


def plan_retry(
    store: Store, job: Job, plans: Plans, listing: Listing, sources: list[PlannedSource], attempt: int
) -> bool:
    """Plans new units of sources that gave no row; False when another process planned since `plans` were read."""
    units = list(cut_units(sources, job.cells * _views(job), _identity(job), attempt))
    listed = SourceTable.of(listing.sources)
    kept = _moved(plans, listed)
    again = listed.by_key.rows(PlannedRows.of(sources).keys)
    kept[again[again >= 0]] = False
    tables = planned_tables(store, plans.annotations, listing, ~plans.holds(listed), kept)
    return _create(store, job, plans, units, tables)


def _moved(plans: Plans, listed: SourceTable) -> np.ndarray:
    """bool [n]: which listed sources are planned with other moments than they have now."""
    found = np.zeros(len(listed), bool)
    if listed.has_moments or any(MOMENTS in plan.sources.table.column_names for plan in plans.rows):
        for _, rows in plans.changed(listed, [MOMENTS]):
            found[rows] = True
    return found


def _identity(job: Job) -> dict[str, Any]:
    return {**job.settings, "tokenizer": job.tokenizer["id"]}


def _views(job: Job) -> int:
    return int(job.settings["views"])


def _create(store: Store, job: Job, plans: Plans, units: list[Unit], tables: dict[str, pa.Table]) -> bool:
    written = {name: write_annotation(store, name, table) for name, table in sorted(tables.items())}
    reached("after_annotations")
    facts = {
        "format_version": FORMAT_VERSION,
        "name": job.name,
        "root": shown(job.root),
        "settings": job.settings,
        "tokenizer": job.tokenizer,
        "annotations": {name: asdict(annotation) for name, annotation in written.items()},
    }
    data = parquet_bytes(plan_table(units, {"toto": json.dumps(facts, sort_keys=True)}))
    created = store.create(f"{FOLDER}/{len(plans.files) + 1:04d}.parquet", data)
    reached("after_plan")
    return created


def _refuse_other_folder(plans: Plans, known: np.ndarray, job: Job, where: str) -> None:
    """Two folders must not end up in one dataset by mistake; one that was moved, or has grown, is welcome."""
    root = shown(job.root)
    if plans.root in (None, root) or not plans.sources or not len(known):
        return
    if not known.any():
        raise UsageError(
            f"{where} was made from {plans.root}, and none of its sources is in {root}; "
            "use another --out for a new dataset"
        )


def _describe(tokenizer: dict[str, Any] | None) -> str:
    value = tokenizer or {}
    return f"{value.get('name')} (id {value.get('id', json_sha256(value)[:16])})"
