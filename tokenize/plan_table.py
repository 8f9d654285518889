"""A plan as a table: one row for each source, the sources of a unit one after the other.

units ─plan_table─▶ plan/000N.parquet ─read_plan─▶ the same rows, smaller, and the units that are slices of them
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UsageError, UserError
from toto.shards.parquet import TableFile
from toto.tokenize.planned import MOMENTS, NAMES, PlannedRows
from toto.tokenize.sources.source_table import strings
from toto.tokenize.units import Unit

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
MOMENTS_FIELD = pa.field(MOMENTS, pa.list_(pa.int32()))  # a column more, in plans of sources that have them
WORDS = ("split", "kind")  # columns of a few different words


@dataclass(frozen=True)
class PlanRows:
    """A plan that was read: the columns NAMES (and MOMENTS), and which unit and attempt each row is of."""

    sources: PlannedRows
    attempts: np.ndarray  # uint16
    units: list[Unit]
    facts: dict[str, Any]  # what stands in the file's metadata


def plan_table(units: Sequence[Unit], metadata: dict[str, str]) -> pa.Table:
    """The table of a plan; it has the column `moments` only where some source has moments."""
    sources = pa.concat_tables([PlannedRows.of(unit.sources).table for unit in units] or [_nothing()])
    of_row = np.repeat(np.arange(len(units), dtype=np.int32), [len(unit.sources) for unit in units])
    ids = pa.array([unit.id for unit in units], pa.string())
    attempts = np.array([unit.attempt for unit in units], np.uint16)
    has_moments = MOMENTS in sources.column_names
    schema = PLAN_SCHEMA.append(MOMENTS_FIELD) if has_moments else PLAN_SCHEMA
    columns = [ids.take(pa.array(of_row)), pa.array(attempts[of_row])]
    columns += [_stored(sources[name], schema.field(name).type) for name in schema.names[2:]]
    return pa.table(columns, schema=schema.with_metadata(metadata))


def _stored(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return strings(column) if pa.types.is_large_string(column.type) else column.cast(kind)


def read_plan(data: bytes, target: str, name: str) -> PlanRows:
    """A target's plan by its file's content, column by column: about 75 bytes a source.

    UserError where it is damaged, or rows of one unit do not stand together; UsageError for a derived dataset's plan.
    """
    where = f"{target}/{name}"
    try:
        file = TableFile(data)
        facts = json.loads(file.read([]).schema.metadata[b"toto"])
        _refuse_derived(facts, target)  # before the columns, which are others there
        columns = file.read(["unit", "attempt"])
        small = {name: _small(name, file.read([name])[name]) for name in NAMES}
        table = pa.table({**small, **{name: file.read([name])[name] for name in file.read([MOMENTS]).column_names}})
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{where}: damaged ({first_line}); put it back from a copy, the dataset follows from it"
        ) from None
    attempts = columns["attempt"].to_numpy()
    units = list(_units(columns["unit"], attempts, PlannedRows(table), where))
    return PlanRows(PlannedRows(table), attempts, units, facts)


def _refuse_derived(facts: dict[str, Any], target: str) -> None:
    derived = facts["settings"].get("derived")
    if derived is not None:
        raise UsageError(
            f"{target} was made by `toto-shards {derived['how']}`, of rows that had their tokens; "
            "nothing can be tokenized into it, use another --out"
        )


def _units(names: pa.ChunkedArray, attempts: np.ndarray, sources: PlannedRows, where: str) -> Iterator[Unit]:
    """The units of a plan, in its order; UserError where rows of one unit do not stand together."""
    if not len(sources):
        return
    runs = pc.run_end_encode(names.combine_chunks())
    ids = runs.values.to_pylist()
    if len(set(ids)) < len(ids):
        raise UserError(f"{where}: damaged (sources of one unit stand apart); put it back from a copy")
    for name, (start, end) in zip(ids, pairwise([0, *runs.run_ends.to_pylist()]), strict=True):
        rows = sources[start:end]
        yield Unit(name, rows[0].split, int(attempts[start]), rows)


def _small(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.dictionary_encode() if name in WORDS else column


def _nothing() -> pa.Table:
    return pa.table({name: pa.array([], PLAN_SCHEMA.field(name).type) for name in NAMES})
