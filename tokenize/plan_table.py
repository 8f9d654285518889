"""A plan as a table: one row for each source, the sources of a unit one after the other.

    units ─plan_table─▶ plan/000N.parquet ─planned_units─▶ units, whose sources are made from the table when asked for

A plan may hold tens of millions of sources (ImageNet-21k: 13.9M), so no Python object of each is kept.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.tokenize.units import PlannedSource, Unit

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
OF_SOURCES = [name for name in PLAN_SCHEMA.names if name not in ("unit", "attempt")]
ROWS_AT_ONCE = 65_536


class PlannedRows(Sequence[PlannedSource]):
    """Consecutive rows of a plan as planned sources, each made anew when it is asked for; pickled as a tuple."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[PlannedSource]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            part = self._table.slice(start, ROWS_AT_ONCE)
            columns = [part[name].to_pylist() for name in OF_SOURCES]
            own = part[MOMENTS.name].to_pylist() if MOMENTS.name in part.column_names else [None] * len(part)
            columns.append([None if moments is None else tuple(moments) for moments in own])
            yield from (PlannedSource(*values) for values in zip(*columns, strict=True))

    @overload
    def __getitem__(self, i: int) -> PlannedSource: ...

    @overload
    def __getitem__(self, i: slice) -> Sequence[PlannedSource]: ...

    def __getitem__(self, i: int | slice) -> PlannedSource | Sequence[PlannedSource]:
        if isinstance(i, slice):
            return tuple(PlannedRows(self._table.take(range(len(self))[i])))
        (found,) = PlannedRows(self._table.slice(range(len(self))[i], 1))
        return found

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, PlannedRows | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


def plan_table(units: Sequence[Unit], metadata: dict[str, str]) -> pa.Table:
    """The table of a plan; it has the column `moments` only where some source has moments."""
    sources = [source for unit in units for source in unit.sources]
    of_row = np.repeat(np.arange(len(units)), [len(unit.sources) for unit in units])
    ids = pa.array([unit.id for unit in units], pa.string())
    attempts = np.array([unit.attempt for unit in units], np.uint16)
    columns = [ids.take(pa.array(of_row)), pa.array(attempts[of_row])]
    columns += [_column(sources, PLAN_SCHEMA.field(name)) for name in OF_SOURCES]
    schema = PLAN_SCHEMA
    if any(source.moments is not None for source in sources):
        schema = schema.append(MOMENTS)
        columns.append(_column(sources, MOMENTS))
    return pa.table(columns, schema=schema.with_metadata(metadata))


def planned_units(table: pa.Table, where: str) -> Iterator[Unit]:
    """The units of a plan's table, in its order; UserError where rows of one unit do not stand together."""
    if not len(table):
        return
    runs = pc.run_end_encode(table["unit"].combine_chunks())
    names = runs.values.to_pylist()
    if len(set(names)) < len(names):
        raise UserError(f"{where}: damaged (sources of one unit stand apart); put it back from a copy")
    for name, (start, end) in zip(names, pairwise([0, *runs.run_ends.to_pylist()]), strict=True):
        rows = table.slice(start, end - start)
        yield Unit(name, rows["split"][0].as_py(), rows["attempt"][0].as_py(), PlannedRows(rows))


def keys_of(table: pa.Table) -> Iterator[str]:
    """Every key of a plan's table, or of the column `key` of another one."""
    for part in table.select(["key"]).to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from part["key"].to_pylist()


def _column(sources: Sequence[PlannedSource], field: pa.Field) -> pa.Array:
    return pa.array([getattr(source, field.name) for source in sources], field.type)
