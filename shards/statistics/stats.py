"""What a dataset's codes are like: one pass over its record batches, in one process or several, in bounded memory.

    tasks ─each─▶ Tally (codes, positions, neighbours, stretches) + per-source table ─added up─▶ figures, Parquet, PNG

Everything is counted exactly over all batches, or over a keyed sample of them whose share is stated. Only the entropy
given a neighbour stands on chosen contexts where the vocabulary is large (contexts.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toto.errors import UserError, naming
from toto.shards.batch import Batch
from toto.shards.dataset import Dataset
from toto.shards.statistics.block import blocks
from toto.shards.statistics.contexts import Contexts
from toto.shards.statistics.gram_counter import Counted
from toto.shards.statistics.groups import GroupCodes, GroupSums
from toto.shards.statistics.ngrams import code_bits
from toto.shards.statistics.per_source import SCHEMA, PerSource
from toto.shards.statistics.reading import Reading, Task, batches_of, plan
from toto.shards.statistics.source_extremes import SourceExtremes
from toto.shards.statistics.stats_facts import facts
from toto.shards.statistics.tally import Tally
from toto.shards.workers import each

GROUPS = ("source", "split", "label")


@dataclass(frozen=True)
class Asked:
    """What `stats` is to do."""

    uri: str | Path
    split: str | None = None
    by: str | None = None  # of GROUPS
    sample: int | None = None  # record batches; None is all
    workers: int = 1
    per_source: Path | None = None  # a Parquet file with a row for each source


@dataclass(frozen=True)
class Rules:
    """What every process counts alike."""

    contexts: Contexts
    grid: tuple[int, int]  # of the first row
    splits: tuple[str, ...]  # of each shard
    labels: dict[str, int] | None  # source -> label, by the annotations
    by: str | None  # split or label, where their codes are counted apart
    groups: dict[Any, int]  # value of `by` -> its number
    folder: Path  # for what does not fit in memory

    @property
    def bits(self) -> int:
        """Of a code."""
        return code_bits(self.contexts.vocab_size)

    def group(self, value: Any) -> int:
        """The number of a split's or label's group; UserError for a label that no per-source result has."""
        if value not in self.groups:
            raise UserError(f"{self.by} {value!r} stands in a row and not in sources/; run `toto-shards verify --deep`")
        return self.groups[value]

    def group_codes(self) -> GroupCodes:
        """A counter for the codes of each group."""
        return GroupCodes(len(self.groups), self.bits, self.folder)


def stats(asked: Asked, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """The figures as data; writes the per-source file, whole or not at all. UserError, UsageError."""
    reading = plan(asked.uri, asked.split, asked.sample, workers=asked.workers)
    with TemporaryDirectory(prefix="toto-stats-", ignore_cleanup_errors=True) as folder:
        rules = _rules(reading, asked.by, Path(folder))
        total, extremes, done = Tally(rules.contexts, rules.grid), SourceExtremes(), 0
        codes, sums = rules.group_codes(), GroupSums(rules.by or "split")
        make = partial(_Counting, reading.open, rules, asked.workers > 1)
        progress(0, reading.rows)
        with _parquet(asked.per_source) as write:
            for task, (tally, sources, counted) in each(make, reading.tasks, asked.workers):
                total.merge(tally)
                for take in (extremes.add, sums.add, write):
                    take(sources)
                codes.merge(counted)
                done += task.rows
                progress(done, reading.rows)
        value = facts(reading, total, extremes)
        if rules.by:
            figures = codes.figures()
            names = _class_names(reading.dataset) if rules.by == "label" else {}
            lines = [line | figures[rules.groups[line[rules.by]]] for line in sums.lines()]
            value["by"] = {rules.by: [line | _named(line, names) for line in lines]}
    return value


class _Counting:
    """Counts tasks; one in each process."""

    def __init__(self, open_dataset: Callable[[], Dataset], rules: Rules, to_files: bool) -> None:
        self._dataset, self._rules, self._to_files = open_dataset(), rules, to_files

    def __call__(self, task: Task) -> tuple[Tally, pa.Table, Counted]:
        rules = self._rules
        tally, sources = Tally(rules.contexts, rules.grid), PerSource(rules.bits, rules.labels)
        codes = rules.group_codes()
        for shard, batch in batches_of(self._dataset, task):
            tally.add(batch, rules.splits[shard], sources)
            if rules.by:
                codes.add(batch, self._groups_of(batch, shard), rules.contexts.vocab_size)
        return tally.finish(), sources.table(), codes.finish(self._to_files)

    def _groups_of(self, batch: Batch, shard: int) -> np.ndarray:
        """int64 [rows]: the number of each row's group."""
        rules = self._rules
        if rules.by == "split":
            return np.full(batch.rows, rules.group(rules.splits[shard]))
        if rules.labels is not None:
            return np.array([rules.group(rules.labels.get(name)) for name in batch.sources])
        return np.array([rules.group(batch.value("label", i)) for i in range(batch.rows)])


def _class_names(dataset: Dataset) -> dict[int, str]:
    """Class number -> name, where the dataset tells."""
    if "classes" not in dataset.info["annotations"]:
        return {}
    return {line["label"]: str(line["name"]) for line in dataset.annotations("classes").to_pylist()}


def _named(line: dict[str, Any], names: dict[int, str]) -> dict[str, str]:
    return {"name": names[line["label"]]} if names and line["label"] in names else {}


def _rules(reading: Reading, by: str | None, folder: Path) -> Rules:
    dataset = reading.dataset
    vocab_size = dataset.tokenizer["vocab_size"]
    first, grid = np.zeros(vocab_size, np.int64), (1, 1)
    for shard in reading.tasks[0].shards[:1]:
        _, _, batch = next(iter(dataset.batches(shard)))
        for block in blocks(batch, vocab_size):
            first += np.bincount(block.codes.reshape(-1), minlength=vocab_size)
            grid = block.codes.shape[1], block.codes.shape[2]
    splits = tuple(reading.shards["split"].to_pylist())
    labels = dataset.labels() if "labels" in dataset.info["annotations"] else None
    values: list[Any] = sorted(set(splits)) if by == "split" else []
    if by == "label":
        known = labels.values() if labels is not None else dataset.sources()["label"].to_pylist()
        values = [*sorted({value for value in known if value is not None}), None]
    groups = {value: number for number, value in enumerate(values)}
    return Rules(Contexts.choose(first), grid, splits, labels, by if groups else None, groups, folder)


@contextmanager
def _parquet(path: Path | None) -> Iterator[Callable[[pa.Table], None]]:
    """Takes tables and writes them to a file, which is there when all are in it."""
    if path is None:
        yield lambda table: None
        return
    partial_path = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pq.ParquetWriter(partial_path, SCHEMA, compression="zstd") as writer:
                yield writer.write_table
            partial_path.replace(path)
        finally:
            partial_path.unlink(missing_ok=True)
