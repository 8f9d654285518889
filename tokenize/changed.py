"""Sources that are not the files any more that were planned, by size, time and etag, as a run lists them.

    planned ≠ listed ─┬─ its unit is to be done: done as it is now, and what it is now is kept with the unit's results
                      └─ it has rows: compared with what was kept when they were made; told, and never done again

What is kept: {"found": {key: [size, mtime_us, etag]}} in the metadata of the results' Parquet file, of sources that
were not as planned. Sources that gave no row are passed over: `retry` takes them as they are. A source that was done
as another file, and is as it was planned again, is not looked at: nothing in the listing tells.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from toto.errors import UserError
from toto.shards.commit import read_commits
from toto.shards.schema import METADATA_KEY
from toto.shards.seal import read_results
from toto.shards.store import Store
from toto.tokenize.key_index import KeyIndex
from toto.tokenize.plan import Plans
from toto.tokenize.planned import FACTS, MOMENTS, PlannedRows, PlannedSource, differ
from toto.tokenize.sources.base import Source
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.units import Unit

Facts = tuple[int, int, str]  # FACTS of a source


@dataclass(frozen=True)
class Changed:
    """Keys of changed sources."""

    todo: list[str]  # of units that are to be done
    done: list[str]  # whose rows are of other files

    @property
    def keys(self) -> list[str]:
        """All, sorted."""
        return sorted({*self.todo, *self.done})


def look(
    store: Store, plans: Plans, listed: SourceTable, todo: Sequence[Unit], committed: Set[str]
) -> tuple[list[Unit], Changed]:
    """The units to do, with their sources as they are listed now, and which sources are changed."""
    differs = np.zeros(len(listed), bool)
    for _, rows in plans.changed(listed, [*FACTS, MOMENTS]):
        differs[rows] = True
    if not differs.any():
        return list(todo), Changed([], [])
    units, now = [], []
    for unit in todo:
        sources, at = _of(unit, listed, differs)
        now += sources.keys.to_pylist()
        units.append(_as_listed(unit, listed.take(at)) if len(at) else unit)
    done = (plans.units[name] for name in committed if name in plans.units)
    return units, Changed(sorted(now), sorted(_other_rows(store, done, listed, differs)))


def found_facts(unit: Unit) -> dict[bytes, bytes] | None:
    """What stands beside a unit's results: the facts of the sources that were not as planned; None without any."""
    if not unit.changed:
        return None
    found = {source.key: _facts(source) for source in unit.sources if source.key in unit.changed}
    return {METADATA_KEY: json.dumps({"found": found}, sort_keys=True).encode()}


def _of(unit: Unit, listed: SourceTable, wanted: np.ndarray) -> tuple[PlannedRows, np.ndarray]:
    """The sources of a unit that are listed at wanted rows, and these rows."""
    rows = PlannedRows.of(unit.sources)
    at = listed.by_key.rows(rows.keys)
    chosen = (at >= 0) & wanted[at]
    return rows.where(chosen), at[chosen]


def _as_listed(unit: Unit, listed: SourceTable) -> Unit:
    """The same unit with the facts of these sources as they are listed."""
    found = {source.key: _facts(source) for source in listed}
    return replace(unit, sources=_with(unit.sources, found), changed=frozenset(found))


def _facts(source: Source | PlannedSource) -> Facts:
    return source.size, source.mtime_us, source.etag


def _with(sources: Sequence[PlannedSource], found: Mapping[str, Facts]) -> PlannedRows:
    """Planned sources, some of them with other facts."""
    made: list[PlannedSource] = []
    for source in sources:
        size, mtime_us, etag = found.get(source.key, _facts(source))
        made.append(replace(source, size=size, mtime_us=mtime_us, etag=etag))
    return PlannedRows.of(made)


def _other_rows(store: Store, done: Iterable[Unit], listed: SourceTable, differs: np.ndarray) -> Iterator[str]:
    """Keys of the sources of committed units whose rows were made of other files than are there now."""
    looked = {unit.id: _of(unit, listed, differs) for unit in done}
    commits = read_commits(store, {name for name, (_, at) in looked.items() if len(at)})
    for commit, results in zip(commits, read_results(store, commits), strict=True):
        rows, at = looked[commit.unit]
        place = KeyIndex(results["key"]).rows(rows.keys)
        has_rows = (place >= 0) & (results["rows"].combine_chunks().to_numpy(zero_copy_only=False)[place] > 0)
        then = _with(rows.where(has_rows), _recorded(results, commit.sources.path))
        yield from then.where(differ(then, listed.take(at[has_rows]), [*FACTS, MOMENTS])).keys.to_pylist()


def _recorded(results: pa.Table, name: str) -> dict[str, Facts]:
    """What `found_facts` left; UserError for anything else that stands there."""
    told = (results.schema.metadata or {}).get(METADATA_KEY)
    if told is None:
        return {}
    try:
        facts = json.loads(told)["found"].items()
        found = {str(key): (int(size), int(mtime_us), str(etag)) for key, (size, mtime_us, etag) in facts}
        np.array([(size, mtime_us) for size, mtime_us, _ in found.values()], np.int64)  # they fit
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise UserError(f"{name}: not a table that toto wrote (what its sources were is not readable)") from None
    return found
