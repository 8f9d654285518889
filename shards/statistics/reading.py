"""Which record batches are read: all, or a keyed sample whose share is stated; cut into tasks for several processes.

A task is whole shards, or single batches of one. A shard holds whole sources, so a task that reads whole shards
does too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.shards.batch import Batch
from toto.shards.dataset import Dataset
from toto.shards.parquet import read_parquet
from toto.shards.reader import DamagedShard
from toto.shards.seal import file_ref
from toto.shards.streaming.keyed import Permutation, key

TASK_TOKENS = 1 << 26  # ids a task reads, unless one shard alone has more: some seconds
FEW_TOKENS = 1 << 24  # what the result of a task costs is small beside reading so many
TASKS_PER_WORKER = 8  # at least, where there is so much to read


@dataclass(frozen=True)
class Task:
    """Whole shards, or some batches of one."""

    shards: tuple[int, ...]  # numbers in the manifest, in order
    batches: tuple[int, ...] | None  # of the only shard; None is all
    rows: int


@dataclass(frozen=True)
class Reading:
    """A snapshot, pinned, and what of it is read."""

    dataset: Dataset
    open: partial[Dataset]  # gives the same again, also in another process, and when the dataset has grown
    shards: pa.Table  # the manifest's rows with a shard, of the split
    tasks: tuple[Task, ...]
    batches: int
    of_batches: int

    @property
    def exact(self) -> bool:
        """Whether nothing is left out."""
        return self.batches == self.of_batches

    @property
    def rows(self) -> int:
        """Rows of all tasks."""
        return sum(task.rows for task in self.tasks)

    def facts(self) -> dict[str, Any]:
        """What is read, as data."""
        info = self.dataset.info
        return {
            "uri": str(self.dataset.store.uri),
            "name": info["name"],
            "dataset_id": self.dataset.dataset_id,
            "split": self.open.keywords["split"],
            "tokenizer": info["tokenizer"]["name"],
            "vocab_size": info["tokenizer"]["vocab_size"],
            "read": {
                "exact": self.exact,
                "batches": self.batches,
                "of_batches": self.of_batches,
                "rows": self.rows,
                "of_rows": len(self.dataset),
            },
        }


def plan(
    uri: str | Path,
    split: str | None = None,
    sample: int | None = None,
    seed: int = 0,
    workers: int = 1,
    codes: bool = True,
) -> Reading:
    """All batches, or `sample` of them, drawn by `seed` and the dataset's id. UserError where `codes` are wanted and
    there are none, in the tokenizer or for want of rows."""
    dataset = Dataset(uri, split=split)
    if codes and not dataset.tokenizer["vocab_size"]:
        raise UserError(f"{dataset.store.uri} holds pixels and no codes; there is nothing to count")
    if codes and not len(dataset):
        raise UserError(f"{dataset.store.uri} has no rows")
    shards = shard_table(dataset, split)
    per_shard = [len(rows) for rows in shards["batch_rows"].to_pylist()]
    batches = sum(per_shard)
    if sample is None or sample >= batches:
        tasks, chosen = tuple(_whole_shards(shards, workers)), batches
    else:
        tasks, chosen = tuple(_sampled(dataset, per_shard, sample, seed)), sample
    again = partial(Dataset, uri, id=dataset.dataset_id, split=split)
    return Reading(dataset, again, shards, tasks, chosen, batches)


def batches_of(dataset: Dataset, task: Task) -> Iterator[tuple[int, Batch]]:
    """(shard, batch) of a task, in order."""
    for shard in task.shards:
        if task.batches is None:
            yield from ((shard, batch) for _, _, batch in dataset.batches(shard))
        else:
            yield from ((shard, dataset.shard_batch(shard, batch)) for batch in task.batches)


def shard_table(dataset: Dataset, split: str | None) -> pa.Table:
    """The manifest's rows that have a shard, as `Dataset` numbers them."""
    ref = dataset.info["files"]["manifest"]
    data = dataset.store.read(ref["path"])
    if file_ref(ref["path"], data).sha256 != ref["sha256"]:
        raise DamagedShard(f"{dataset.store.uri}/{ref['path']}", "the file is not as it was sealed")
    table = read_parquet(data)
    table = table.filter(pc.is_valid(table["path"]))
    return table if split is None else table.filter(pc.equal(table["split"], split))


def _whole_shards(shards: pa.Table, workers: int) -> Iterator[Task]:
    """Neighbouring shards together, so that tasks are neither tiny nor few."""
    tokens, rows = shards["tokens"].to_pylist(), shards["rows"].to_pylist()
    most = min(TASK_TOKENS, max(FEW_TOKENS, sum(tokens) // (TASKS_PER_WORKER * workers)))
    group: list[int] = []
    held = 0
    for shard, size in enumerate(tokens):
        if group and held + size > most:
            yield Task(tuple(group), None, sum(rows[i] for i in group))
            group, held = [], 0
        group.append(shard)
        held += size
    if group:
        yield Task(tuple(group), None, sum(rows[i] for i in group))


def _sampled(dataset: Dataset, per_shard: list[int], sample: int, seed: int) -> Iterator[Task]:
    """One task for each shard that has a chosen batch."""
    firsts = np.cumsum([0, *per_shard])
    order = Permutation(int(firsts[-1]), key(seed, "sample of batches", dataset.dataset_id))
    chosen = np.sort(order.many(np.arange(sample)))
    shards = np.searchsorted(firsts, chosen, side="right") - 1
    places = zip(shards.tolist(), (chosen - firsts[shards]).tolist(), strict=True)
    for shard, group in groupby(places, key=lambda place: place[0]):
        wanted = tuple(batch for _, batch in group)
        rows = np.diff(dataset.batch_ends(shard), prepend=0)
        yield Task((shard,), wanted, int(rows[list(wanted)].sum()))
