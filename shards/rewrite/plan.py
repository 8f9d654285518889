"""The plan of a derived dataset: plan/0001.parquet, created once. What it holds decides every unit and every row.

    unit | split | the lines of that unit: pieces of snapshots (pieces.py), or files (importing.py)

Its metadata holds what a seal needs besides the commits. The same command again reads the plan and goes on; one that
would make something else is refused.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UsageError, UserError
from toto.lazy import cached_property
from toto.shards.annotation_file import write_annotation
from toto.shards.commit import FileRef
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.schema import FORMAT_VERSION
from toto.shards.seal import Annotation, DatasetSpec, file_ref
from toto.shards.snapshot import DATASET
from toto.shards.store import Store

NAME = "plan/0001.parquet"


@dataclass(frozen=True)
class DerivedUnit:
    """What one worker does in one go: lines of the plan, all of one split."""

    id: str
    split: str
    lines: pa.Table

    @property
    def bytes(self) -> int:
        """Of ids and pixels, before compression."""
        return int(self.lines["bytes"].to_numpy().sum())


@dataclass(frozen=True)
class Plan:
    """The plan of a target."""

    facts: dict[str, Any]
    table: pa.Table
    file: FileRef

    @cached_property
    def units(self) -> dict[str, DerivedUnit]:
        """Unit id -> unit, in the order of the plan."""
        return {unit.id: unit for unit in _units(self.table)}

    @property
    def tokenizer(self) -> dict[str, Any]:
        """As in dataset.json."""
        return dict(self.facts["tokenizer"])

    @property
    def settings(self) -> dict[str, Any]:
        """As in dataset.json."""
        return dict(self.facts["settings"])

    def spec(self) -> DatasetSpec:
        """What a seal needs."""
        annotations = {
            name: Annotation(FileRef(**value["file"]), value["content_hash"])
            for name, value in self.facts["annotations"].items()
        }
        return DatasetSpec(
            self.facts["name"],
            self.tokenizer,
            self.settings,
            annotations,
            [self.file],
            frozenset(self.units),
            self.facts["sources"],
        )


@dataclass(frozen=True)
class Draft:
    """What a command plans: the content of a plan that is yet to be created."""

    lines: pa.Table  # with units
    annotations: dict[str, pa.Table]
    sources: int


@dataclass(frozen=True)
class Identity:
    """What a derived dataset is, before any of its lines is known; the same command gives the same one."""

    name: str
    tokenizer: dict[str, Any]
    settings: dict[str, Any]  # with `derived`
    inputs: list[str]  # where the snapshots or files lie, without secrets; recorded only
    canary: dict[str, Any]
    fingerprint: str = ""  # of files and of what was told of them; of snapshots their ids are in `settings`

    def of_units(self) -> dict[str, Any]:
        """What a unit's id is made of besides its lines."""
        return {"settings": self.settings, "tokenizer": self.tokenizer["id"]}


def read_plan(store: Store) -> Plan | None:
    """The plan of a target, None where it has none; UsageError where something else than a derived dataset is there."""
    if not store.exists(NAME):
        if store.exists(DATASET):
            raise UsageError(f"{store.uri} holds a dataset already; use another --out")
        return None
    data = store.read(NAME)
    try:
        table = read_parquet(data)
        facts = json.loads(table.schema.metadata[b"toto"])
        derived = facts["settings"].get("derived")
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{store.uri}/{NAME}: damaged; put it back from a copy, the dataset follows from it") from None
    if derived is None:
        raise UsageError(f"{store.uri} holds a dataset that toto-tokenize made; use another --out")
    return Plan(facts, table.combine_chunks(), file_ref(NAME, data))


def planned(store: Store, identity: Identity, draft: Draft | None, reached: Callable[[str], None]) -> Plan:
    """The plan of a target: the one that is there, or the draft. UsageError where that is of something else."""
    if draft is not None:
        _create(store, identity, draft, reached)
    plan = read_plan(store)
    if plan is None:
        raise UserError(f"{store.uri}/{NAME}: gone right after it was written; was the dataset removed?")
    _refuse_other(plan, identity, store.uri)
    return plan


def _create(store: Store, identity: Identity, draft: Draft, reached: Callable[[str], None]) -> None:
    if not len(draft.lines):
        raise UserError(f"{', '.join(identity.inputs)}: there is nothing to make a dataset of")
    written = {name: write_annotation(store, name, table) for name, table in sorted(draft.annotations.items())}
    reached("after_annotations")
    facts = {
        "format_version": FORMAT_VERSION,
        **asdict(identity),
        "annotations": {name: asdict(annotation) for name, annotation in written.items()},
        "sources": draft.sources,
    }
    schema = draft.lines.schema.with_metadata({"toto": json.dumps(facts, sort_keys=True)})
    store.create(NAME, parquet_bytes(draft.lines.cast(schema)))
    reached("after_plan")


def _refuse_other(plan: Plan, identity: Identity, where: str) -> None:
    told = {**plan.settings, **plan.settings["derived"], "tokenizer": plan.tokenizer["id"], "name": plan.facts["name"]}
    own = {"tokenizer": identity.tokenizer["id"], "name": identity.name}
    asked = {**identity.settings, **identity.settings["derived"], **own}
    for key in sorted((told.keys() | asked.keys()) - {"derived"}):
        if told.get(key) != asked.get(key):
            raise UsageError(
                f"{where} is made with {key} = {_short(told.get(key))}, this command has {_short(asked.get(key))}; "
                "use the same value, or another --out for a new dataset"
            )
    if plan.facts.get("fingerprint", "") != identity.fingerprint:
        raise UsageError(
            f"{where} is made of other files, or of other facts about them, than {', '.join(identity.inputs)} has now; "
            "give --out a folder of its own"
        )


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 100 else f"{text[:100]}…"


def _units(table: pa.Table) -> Iterator[DerivedUnit]:
    """Lines of one unit stand together."""
    unit_ids = table["unit"].combine_chunks().dictionary_encode()
    edges = np.flatnonzero(np.diff(unit_ids.indices.to_numpy())) + 1
    starts = [0, *edges.tolist()] if len(table) else []
    for start, stop in zip(starts, [*starts[1:], len(table)], strict=True):
        lines = table.slice(start, stop - start)
        yield DerivedUnit(lines["unit"][0].as_py(), lines["split"][0].as_py(), lines)
