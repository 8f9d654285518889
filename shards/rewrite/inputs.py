"""A snapshot that rows are taken from: its units, their per-source results, their rows batch by batch."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from toto.lazy import cached_property
from toto.shards.batch_source import BatchSource
from toto.shards.dataset import Dataset
from toto.shards.sealed_files import SealedFiles
from toto.shards.unit_table import UnitTable

COLUMNS = ("unit", "path", "split", "batch_rows")  # of the manifest
KEPT_LINES = 1 << 19  # per-source results of so many sources, about 80 MB

Span = tuple[int, int]  # rows of a shard: first, and the one behind the last


class Input:
    """An opened snapshot, whole: of all splits."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.uri = dataset.store.uri
        self._files = SealedFiles(dataset.store)
        self._manifest = self._files.table(dataset.info["files"]["manifest"])
        self._batches = BatchSource(dataset.store, UnitTable(self._manifest), dataset.tokenizer["id"], 0)
        self.units: list[dict[str, Any]] = self._manifest.select(COLUMNS).to_pylist()
        self._results: OrderedDict[int, pa.Table] = OrderedDict()  # the last ones that were asked for
        self._lines = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return Input, (self.dataset,)

    @cached_property
    def place(self) -> dict[str, int]:
        """Unit id -> its number in `units`."""
        return {unit["unit"]: i for i, unit in enumerate(self.units)}

    @cached_property
    def _shards(self) -> dict[str, int]:
        """Unit id -> the number of its shard, as the dataset counts them."""
        return {unit: i for i, unit in enumerate(unit["unit"] for unit in self.units if unit["path"] is not None)}

    def results(self, unit: int) -> pa.Table:
        """The per-source results of a unit. Some are kept: pieces of one unit are asked for at different times."""
        if unit not in self._results:
            self._results[unit] = next(self._files.results(self._manifest.slice(unit, 1)))
            self._lines += len(self._results[unit])
            while self._lines > KEPT_LINES and len(self._results) > 1:
                self._lines -= len(self._results.popitem(last=False)[1])
        self._results.move_to_end(unit)
        return self._results[unit]

    def all_results(self) -> Iterator[tuple[int, pa.Table]]:
        """(number, per-source results) of every unit."""
        return enumerate(self._files.results(self._manifest))

    def batch(self, unit: str, batch: int) -> pa.RecordBatch:
        """A record batch of a unit's shard, checked; read past every cache."""
        return self._batches.once(self._shards[unit], batch).arrow


class RowReader:
    """Reads rows of several snapshots; keeps the last batch, in which neighbours stand. For one thread."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = inputs
        self._last: tuple[tuple[int, str, int], pa.RecordBatch] | None = None

    def rows(self, number: int, unit: str, spans: Sequence[Span]) -> Iterator[pa.RecordBatch]:
        """The rows of these spans, which ascend, in the batches in which they stand; one batch in memory at a time."""
        taken = self._inputs[number]
        ends = np.cumsum(taken.units[taken.place[unit]]["batch_rows"], dtype=np.int64)
        wanted = [cut for span in spans for cut in _at_ends(span, ends)]
        begun = 0
        while begun < len(wanted):
            batch = wanted[begun][0]
            over = next((i for i in range(begun, len(wanted)) if wanted[i][0] != batch), len(wanted))
            yield _part(self._batch(number, unit, batch), [span for _, span in wanted[begun:over]])
            begun = over

    def _batch(self, number: int, unit: str, batch: int) -> pa.RecordBatch:
        place = (number, unit, batch)
        if self._last is None or self._last[0] != place:
            self._last = None  # its memory goes before the next one comes
            self._last = place, self._inputs[number].batch(unit, batch)
        return self._last[1]


def _at_ends(span: Span, ends: np.ndarray) -> Iterator[tuple[int, Span]]:
    """A span of a shard's rows -> (batch, span of that batch's rows) for each batch that it touches."""
    start, stop = span
    batch = int(np.searchsorted(ends, start, side="right"))
    while start < stop:
        first = int(ends[batch - 1]) if batch else 0
        end = min(stop, int(ends[batch]))
        yield batch, (start - first, end - first)
        start, batch = end, batch + 1


def _part(batch: pa.RecordBatch, spans: list[Span]) -> pa.RecordBatch:
    """These rows of a batch: itself where it is all of them, else a copy, which does not keep the rest in memory."""
    wanted = np.concatenate([np.arange(start, stop) for start, stop in spans])
    return batch if len(wanted) == batch.num_rows else batch.take(pa.array(wanted))
