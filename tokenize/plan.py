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
import pyarrow.compute as pc

from toto.errors import UsageError, UserError
from toto.shards.annotation_file import write_annotation
from toto.shards.commit import FileRef
from toto.shards.hashing import json_sha256
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.schema import FORMAT_VERSION
from toto.shards.seal import Annotation, DatasetSpec, file_ref
from toto.shards.store import Store
from toto.tokenize.annotations import planned_tables, unchanged, with_known_classes
from toto.tokenize.crash import reached
from toto.tokenize.job import Job
from toto.tokenize.plan_table import keys_of, plan_table, planned_units
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.units import PlannedSource, Unit, cut_units, planned
from toto.uris import shown

FOLDER = "plan"
Estimate = Callable[[list[Source]], list[int]]


@dataclass(frozen=True)
class Plans:
    """All plans of a target, read in order."""

    units: dict[str, Unit]  # in the order in which they were planned
    tables: list[pa.Table]  # what the units were made from
    files: list[FileRef]
    annotations: dict[str, Annotation]  # of the newest plan
    root: str | None  # where the newest plan's sources lay
    settings: dict[str, Any] | None  # of the first plan; None when there is none
    tokenizer: dict[str, Any] | None

    def keys(self) -> set[str]:
        """Every source that some plan holds."""
        return {key for table in self.tables for key in keys_of(table)}

    def latest(self) -> Iterator[PlannedSource]:
        """Every source as it was planned last, in the order of the plans."""
        last = {s.key: unit.attempt for unit in self.units.values() if unit.attempt for s in unit.sources}
        for unit in self.units.values():
            yield from (source for source in unit.sources if last.get(source.key, 0) == unit.attempt)

    @property
    def sources(self) -> int:
        """How many sources the plans hold: each is planned once for its first attempt."""
        return sum(pc.sum(pc.equal(table["attempt"], 0)).as_py() or 0 for table in self.tables)

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
    tables, files, annotations = [], [], {}
    first: dict[str, Any] | None = None
    root = None
    for name in (name for name in store.list(FOLDER) if name.endswith(".parquet")):
        data = store.read(name)
        table = _read_table(data, f"{store.uri}/{name}")
        facts = json.loads(table.schema.metadata[b"toto"])
        _refuse_derived(facts, store.uri)
        first, root = first or facts, shown(facts["root"])
        annotations = {
            key: Annotation(FileRef(**a["file"]), a["content_hash"]) for key, a in facts["annotations"].items()
        }
        units.update((unit.id, unit) for unit in planned_units(table, f"{store.uri}/{name}"))
        tables.append(table)
        files.append(file_ref(name, data))
    settings, tokenizer = (first["settings"], first["tokenizer"]) if first else (None, None)
    return Plans(units, tables, files, annotations, root, settings, tokenizer)


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
        known = plans.keys()
        _refuse_other_folder(plans, known, job, listing, store.uri)
        listing = with_known_classes(store, plans.annotations, listing)
        fresh = [source for source in listing.sources[:limit] if source.key not in known]
        sources = [planned(source, frames) for source, frames in zip(fresh, estimate(fresh), strict=True)]
        if limit is None:
            left_out = set()
        else:
            left_out = {source.key for source in listing.sources[limit:]} - known
        tables = planned_tables(store, plans.annotations, listing, left_out, _moved(plans, listing))
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
    tables = planned_tables(store, plans.annotations, listing, listing.by_key.keys() - plans.keys(), kept)
    return _create(store, job, plans, units, tables)


def _moved(plans: Plans, listing: Listing) -> set[str]:
    """Keys of planned sources whose moments are others now."""
    now = listing.by_key
    return {s.key for s in plans.latest() if s.key in now and now[s.key].moments != s.moments}


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


def _refuse_other_folder(plans: Plans, known: set[str], job: Job, listing: Listing, where: str) -> None:
    """Two folders must not end up in one dataset by mistake; one that was moved, or has grown, is welcome."""
    root = shown(job.root)
    if plans.root in (None, root) or not known or not listing.sources:
        return
    if known.isdisjoint(source.key for source in listing.sources):
        raise UsageError(
            f"{where} was made from {plans.root}, and none of its sources is in {root}; "
            "use another --out for a new dataset"
        )


def _refuse_derived(facts: dict[str, Any], where: str) -> None:
    derived = facts["settings"].get("derived")
    if derived is not None:
        raise UsageError(
            f"{where} was made by `toto-shards {derived['how']}`, of rows that had their tokens; "
            "nothing can be tokenized into it, use another --out"
        )


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
