"""Rows of a unit, taken from the snapshots that its pieces name: as they are, but for prefixes and class numbers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.rewrite.class_numbers import Renumbering
from toto.shards.rewrite.inputs import Input, RowReader, Span
from toto.shards.rewrite.plan import DerivedUnit
from toto.shards.schema import SOURCES_SCHEMA, row_id
from toto.shards.writer import ShardWriter


class RowCopier:
    """Makes units of pieces. `prefixes`: what is put before the keys of each snapshot, "" for nothing. `unlabelled`:
    labels become null, in rows and results; `numbers`: they become others, by snapshot."""

    def __init__(
        self,
        inputs: Sequence[Input],
        prefixes: Sequence[str] = (),
        unlabelled: bool = False,
        numbers: Sequence[Renumbering] = (),
    ) -> None:
        self._inputs, self._unlabelled, self._numbers = inputs, unlabelled, numbers
        self._prefixes = list(prefixes) or [""] * len(inputs)

    def make(self, unit: DerivedUnit, writer: ShardWriter, told: Callable[[int], None]) -> pa.Table:
        """Writes the rows; returns the per-source results. `told` hears of bytes, and may raise to stop."""
        results = [SOURCES_SCHEMA.empty_table()]
        reader = RowReader(self._inputs)
        for number, source_unit, lines, spans in self.groups(unit.lines):
            results.append(self._results(number, lines, unit.split))
            for batch in self.rows(reader, number, source_unit, spans):
                writer.write_batch(batch)
                told(batch.nbytes)
        return pa.concat_tables(results)

    def groups(self, pieces: pa.Table) -> Iterator[tuple[int, str, pa.Table, list[Span]]]:
        """Neighbouring pieces of one unit together: snapshot, unit, results of the sources, where their rows are."""
        names = ("dataset", "from_unit", "first", "sources")
        group: list[tuple[int, int]] = []
        of: tuple[int, str] | None = None
        for number, unit, first, sources in zip(*(pieces[name].to_pylist() for name in names), strict=True):
            if of is not None and (of != (number, unit) or first < sum(group[-1])):
                yield *of, *self._found(*of, group)
                group = []
            of = (number, unit)
            group.append((first, sources))
        if of is not None:
            yield *of, *self._found(*of, group)

    def rows(self, reader: RowReader, number: int, unit: str, spans: list[Span]) -> Iterator[pa.RecordBatch]:
        """The rows as they are to be written."""
        for batch in reader.rows(number, unit, spans):
            named = _renamed(batch, self._prefixes[number]) if self._prefixes[number] else batch
            numbered = self._numbers[number].rows(named) if self._numbers else named
            yield _unlabelled(numbered) if self._unlabelled else numbered

    def _found(self, number: int, unit: str, group: list[tuple[int, int]]) -> tuple[pa.Table, list[Span]]:
        taken = self._inputs[number]
        results = taken.results(taken.place[unit])
        ends = np.concatenate([[0], np.cumsum(results["rows"].to_numpy())])
        spans = [(int(ends[first]), int(ends[first + count])) for first, count in group]
        lines = np.concatenate([np.arange(first, first + count) for first, count in group])
        return results.take(pa.array(lines)), [(start, stop) for start, stop in spans if stop > start]

    def _results(self, number: int, lines: pa.Table, split: str) -> pa.Table:
        columns = {name: lines[name] for name in lines.column_names}
        columns["split"] = pa.array([split] * len(lines), pa.string())
        if self._numbers:
            images = pc.equal(lines["kind"].combine_chunks(), "image")
            columns["label"] = self._numbers[number].labels(lines["label"].combine_chunks(), images)
        if self._unlabelled:
            columns["label"] = pa.nulls(len(lines), SOURCES_SCHEMA.field("label").type)
        if prefix := self._prefixes[number]:
            columns["key"] = pa.array([prefix + key for key in lines["key"].to_pylist()], pa.string())
        return pa.table([columns[name] for name in SOURCES_SCHEMA.names], schema=SOURCES_SCHEMA)


def _renamed(batch: pa.RecordBatch, prefix: str) -> pa.RecordBatch:
    """The same rows with a prefix before their source's key, and the row ids that follow from that."""
    sources = [prefix + source for source in batch["source"].to_pylist()]
    numbers = zip(sources, batch["run"].to_pylist(), batch["view"].to_pylist(), strict=True)
    named = {"source": sources, "row_id": [row_id(*place) for place in numbers]}
    columns = [
        pa.array(named[field.name], field.type) if field.name in named else column
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _unlabelled(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows without labels."""
    at = batch.schema.get_field_index("label")
    field = batch.schema.field(at)
    columns = [*batch.columns[:at], pa.nulls(batch.num_rows, field.type), *batch.columns[at + 1 :]]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
