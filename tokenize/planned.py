"""Sources as a plan holds them: columns, of which an object is made when it is asked for.

A plan may hold tens of millions of sources (ImageNet-21k: 13.9M), so no Python object of each is kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.tokenize.sources.base import Source
from toto.tokenize.sources.source_table import SourceTable

NAMES = ["key", "split", "kind", "label", "size", "mtime_us", "etag", "estimated_frames"]
FACTS = ["size", "mtime_us", "etag"]  # of a file, by which another one in its place is told
MOMENTS = "moments"  # a column more, where sources have them
ROWS_AT_ONCE = 65_536
_WORD = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source as the plan holds it."""

    key: str
    split: str
    kind: str
    label: int | None
    size: int
    mtime_us: int
    etag: str
    estimated_frames: int  # kept frames
    moments: tuple[int, ...] | None = None  # decoded frames that its row holds, where annotations name them


class PlannedRows(Sequence[PlannedSource]):
    """Rows of a table with the columns NAMES as planned sources, each made anew; pickled as a tuple."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    @classmethod
    def of(cls, sources: Sequence[PlannedSource]) -> "PlannedRows":
        """The same sources as columns."""
        if isinstance(sources, PlannedRows):
            return sources
        kinds = [pa.large_string(), _WORD, _WORD, pa.int32(), pa.int64(), pa.int64(), pa.large_string(), pa.int64()]
        columns = {
            name: pa.array([getattr(source, name) for source in sources], kind)
            for name, kind in zip(NAMES, kinds, strict=True)
        }
        if any(source.moments is not None for source in sources):
            columns[MOMENTS] = pa.array([source.moments for source in sources], pa.large_list(pa.int32()))
        return cls(pa.table(columns))

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[PlannedSource]:
        for start in range(0, len(self), ROWS_AT_ONCE):
            part = self.table.slice(start, ROWS_AT_ONCE)
            columns = [part[name].to_pylist() for name in NAMES]
            own = part[MOMENTS].to_pylist() if MOMENTS in part.column_names else [None] * len(part)
            columns.append([None if moments is None else tuple(moments) for moments in own])
            yield from (PlannedSource(*values) for values in zip(*columns, strict=True))

    @overload
    def __getitem__(self, i: int) -> PlannedSource: ...

    @overload
    def __getitem__(self, i: slice) -> "PlannedRows": ...

    def __getitem__(self, i: int | slice) -> "PlannedSource | PlannedRows":
        chosen = range(len(self))[i]
        if isinstance(chosen, int):
            (found,) = PlannedRows(self.table.slice(chosen, 1))
            return found
        if chosen.step == 1:
            return PlannedRows(self.table.slice(chosen.start, len(chosen)))
        return PlannedRows(self.table.take(pa.array(chosen, pa.int64())))

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, PlannedRows | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of each."""
        return self.table["key"]

    @property
    def frames(self) -> np.ndarray:
        """int64: the kept frames that the plan expects of each."""
        return self.table["estimated_frames"].to_numpy()

    def where(self, wanted: np.ndarray) -> "PlannedRows":
        """Those for which `wanted` (bool) holds."""
        return PlannedRows(self.table.filter(pa.array(wanted)))


def planned(source: Source, estimated_frames: int) -> PlannedSource:
    """A listed source with its estimate."""
    facts = {name: getattr(source, name) for name in (*NAMES[:-1], MOMENTS)}
    return PlannedSource(**facts, estimated_frames=estimated_frames)


def planned_rows(sources: SourceTable, frames: Sequence[int] | np.ndarray) -> PlannedRows:
    """Listed sources with their estimates; no copy is made."""
    columns = {name: sources.columns[name] for name in NAMES[:-1]}
    columns["estimated_frames"] = pa.chunked_array([pa.array(frames, pa.int64())])
    moments = sources.columns[MOMENTS]
    if moments.null_count < len(moments):
        columns[MOMENTS] = moments
    return PlannedRows(pa.table(columns))


def differ(planned: PlannedRows, listed: SourceTable, names: Sequence[str]) -> np.ndarray:
    """bool [n]: which of these planned sources differ, in one of these columns, from the listed one of the same row."""
    found = np.zeros(len(planned), bool)
    for name in names:
        now = listed.columns[name]
        if name == MOMENTS:
            then = planned.table[name].to_pylist() if name in planned.table.column_names else [None] * len(planned)
            found |= np.array([a != b for a, b in zip(then, now.to_pylist(), strict=True)], bool)
        else:
            found |= np.asarray(pc.not_equal(planned.table[name].cast(now.type), now).combine_chunks(), bool)
    return found
