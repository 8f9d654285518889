"""Plans: append-only lists of units under plan/0001.parquet, 0002… Each holds only sources that no earlier one holds.

    listing ─ keys already planned ─▶ new sources ─ estimate frames ─▶ units ─▶ plan/000N.parquet (created exclusively)

The first plan fixes the settings that decide content; a later run with others is refused. What a plan holds never
changes, so new files and --limit never change a unit that exists.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from toto.errors import UsageError, UserError
from toto.shards.commit import FileRef
from toto.shards.hashing import json_sha256
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.schema import FORMAT_VERSION
from toto.shards.seal import Annotation, DatasetSpec, file_ref
from toto.shards.store import Store
from toto.tokenize.annotations import (
    planned_tables,
    unchanged,
    with_known_classes,
    write_annotation,
)
from toto.tokenize.crash import reached
from toto.tokenize.job import Job
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.units import PlannedSource, Unit, cut_units, planned
from toto.uris import shown

FOLDER = "plan"
PLAN_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("attempt", pa.uint16(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_us", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("estimated_frames", pa.int64(), nullable=False),
    ]
)
MOMENTS = pa.field("moments", pa.list_(pa.int32()))  # a column more, in plans of sources that have them

Estimate = Callable[[list[Source]], list[int]]


@dataclass(frozen=True)
class Plans:
    """All plans of a target, read in order."""

    units: dict[str, Unit]  # in the order in which they were planned
    files: list[FileRef]
    annotations: dict[str, Annotation]  # of the newest plan
    root: str | None  # where the newest plan's sources lay
    settings: dict[str, Any] | None  # of the first plan; None when there is none
    tokenizer: dict[str, Any] | None

    @property
    def keys(self) -> set[str]:
        """Every source that some plan holds."""
        return {source.key for unit in self.units.values() for source in unit.sources}

    def spec(self, job: Job) -> DatasetSpec:
        """What a seal needs."""
        return DatasetSpec(
            job.name,
            self.tokenizer or job.tokenizer,
            self.settings or job.settings,
            self.annotations,
            self.files,
            frozenset(self.units),
            len(self.keys),
        )


def read_plans(store: Store) -> Plans:
    """The plans of a target; empty when it has none."""
    units: dict[str, Unit] = {}
    files, annotations = [], {}
    first: dict[str, Any] | None = None
    root = None
    for name in (name for name in store.list(FOLDER) if name.endswith(".parquet")):
        data = store.read(name)
        table = _read_table(data, f"{store.uri}/{name}")
        facts = json.loads(table.schema.metadata[b"toto"])
        first, root = first or facts, shown(facts["root"])
        annotations = {
            key: Annotation(FileRef(**a["file"]), a["content_hash"]) for key, a in facts["annotations"].items()
        }
        units.update((unit.id, unit) for unit in _units_of(table))
        files.append(file_ref(name, data))
    settings, tokenizer = (first["settings"], first["tokenizer"]) if first else (None, None)
    return Plans(units, files, annotations, root, settings, tokenizer)


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
        known = plans.keys
        _refuse_other_folder(plans, job, listing, store.uri)
        listing = with_known_classes(store, plans.annotations, listing)
        fresh = [source for source in listing.sources[:limit] if source.key not in known]
        sources = [planned(source, frames) for source, frames in zip(fresh, estimate(fresh), strict=True)]
        keys = known | {source.key for source in fresh}
        tables = planned_tables(store, plans.annotations, listing, keys, _moved(plans, listing))
        if not sources and plans.files and unchanged(tables, plans.annotations):
            return plans
        units = list(cut_units(sources, job.cells * _views(job), _identity(job)))
        if _create(store, job, plans, units, tables):
            return read_plans(store)


def plan_retry(
    store: Store, job: Job, plans: Plans, listing: Listing, sources: list[PlannedSource], attempt: int
) -> bool:
    """Plans new units of sources that gave no row; False when another process planned since `plans` were read."""
    refuse_other_settings(plans, job, store.uri)
    units = list(cut_units(sources, job.cells * _views(job), _identity(job), attempt))
    kept = _moved(plans, listing) - {source.key for source in sources}
    tables = planned_tables(store, plans.annotations, listing, plans.keys, kept)
    return _create(store, job, plans, units, tables)


def _moved(plans: Plans, listing: Listing) -> set[str]:
    """Keys of planned sources whose moments are others now."""
    planned = {source.key: source.moments for unit in plans.units.values() for source in unit.sources}
    return {s.key for s in listing.sources if s.key in planned and planned[s.key] != s.moments}


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
    rows = [{**asdict(source), "unit": unit.id, "attempt": unit.attempt} for unit in units for source in unit.sources]
    columns = PLAN_SCHEMA.append(MOMENTS) if any(row["moments"] is not None for row in rows) else PLAN_SCHEMA
    schema = columns.with_metadata({"toto": json.dumps(facts, sort_keys=True)})
    data = parquet_bytes(pa.Table.from_pylist(rows, schema))
    created = store.create(f"{FOLDER}/{len(plans.files) + 1:04d}.parquet", data)
    reached("after_plan")
    return created


def _refuse_other_folder(plans: Plans, job: Job, listing: Listing, where: str) -> None:
    """Two folders must not end up in one dataset by mistake; one that was moved, or has grown, is welcome."""
    root = shown(job.root)
    if plans.root in (None, root) or not plans.keys or not listing.sources:
        return
    if plans.keys.isdisjoint(source.key for source in listing.sources):
        raise UsageError(
            f"{where} was made from {plans.root}, and none of its sources is in {root}; "
            "use another --out for a new dataset"
        )


def _units_of(table: pa.Table) -> Iterator[Unit]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["unit"], []).append(row)
    for unit, members in rows.items():
        attempt, split = members[0]["attempt"], members[0]["split"]
        yield Unit(unit, split, attempt, tuple(map(_planned_source, members)))


def _planned_source(row: dict[str, Any]) -> PlannedSource:
    values = {key: value for key, value in row.items() if key not in ("unit", "attempt")}
    moments = values.get("moments")
    return PlannedSource(**{**values, "moments": None if moments is None else tuple(moments)})


def _read_table(data: bytes, where: str) -> pa.Table:
    try:
        return read_parquet(data)
    except (pa.ArrowException, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"{where}: damaged ({first_line}); put it back from a copy, the dataset follows from it"
        ) from None


def _describe(tokenizer: dict[str, Any] | None) -> str:
    value = tokenizer or {}
    return f"{value.get('name')} (id {value.get('id', json_sha256(value)[:16])})"
