"""Two datasets, or two splits of one: how they differ, and what they share that they should not.

settings ─▶ lines · per-source results ─▶ shared sources · rows ─▶ equal, different · frames ─▶ shared runs
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UsageError
from toto.shards.dataset import Dataset
from toto.shards.manifest import final_results
from toto.shards.statistics.reading import Reading, plan
from toto.shards.statistics.rows_compared import RECORD as ROW_RECORD
from toto.shards.statistics.rows_compared import RowCounts, RowMatcher, row_records
from toto.shards.statistics.shared_facts import shared_facts
from toto.shards.statistics.shared_runs import RunFinder
from toto.shards.statistics.shingles import RECORD as SHINGLE
from toto.shards.statistics.shingles import Search, shingles
from toto.shards.statistics.sources_compared import EXAMPLES, Sources, compare_sources
from toto.shards.workers import each

ABOUT = ("tokenizer", "id_layout", "settings", "annotations")  # parts of a snapshot that are compared key by key


@dataclass(frozen=True)
class Side:
    """A dataset, or one split of it."""

    uri: str | Path
    split: str | None = None


@dataclass(frozen=True)
class Asked:
    """What `diff` is to compare."""

    a: Side
    b: Side
    search: Search | None = Search()  # None: shared runs are not looked for
    rows: bool = True
    workers: int = 1

    @property
    def one_dataset(self) -> bool:
        """Whether two splits of one dataset are compared."""
        return str(self.a.uri) == str(self.b.uri)


def diff(asked: Asked, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """The comparison as data. UserError, UsageError where both sides are the same rows."""
    if asked.a == asked.b:
        raise UsageError("both sides are the same; name another dataset, or two splits of this one")
    plans = [plan(side.uri, side.split, workers=asked.workers, codes=False) for side in (asked.a, asked.b)]
    datasets = [reading.dataset for reading in plans]
    tokenizers = [dataset.tokenizer for dataset in datasets]
    if tokenizers[0]["id"] != tokenizers[1]["id"] or not tokenizers[0]["vocab_size"]:
        asked = replace(asked, search=None)
    sources = compare_sources(_results(datasets[0], asked.a.split), _results(datasets[1], asked.b.split))
    rows, runs = _read(asked, plans, progress)
    return {
        **{name: _about(dataset, side) for name, dataset, side in zip("ab", datasets, (asked.a, asked.b), strict=True)},
        "identical": datasets[0].dataset_id == datasets[1].dataset_id and asked.a.split == asked.b.split,
        "differences": differences(*(dataset.info for dataset in datasets)),
        "sources": _source_facts(sources),
        "rows": None if rows is None else asdict(rows),
        "runs": runs,
        "shared": bool(len(sources.both) or sources.same_file or (runs and (runs["sources_a"] or runs["sources_b"]))),
    }


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """What two snapshots say differently of how they were made: a list of `key`, `a`, `b`; null where it is missing."""
    found = []
    for part in ABOUT:
        for key in sorted(a[part].keys() | b[part].keys()):
            if a[part].get(key) != b[part].get(key):
                found.append({"key": f"{part}.{key}", "a": a[part].get(key), "b": b[part].get(key)})
    return found


@dataclass(frozen=True)
class _Shard:
    """One shard to read."""

    side: int
    number: int  # in the manifest
    first_row: int
    rows: int
    hashed: bool  # whether the hashes of its rows are wanted


class _Reading:
    """Reads shards of both sides; one in each process."""

    def __init__(self, open_sides: list[Callable[[], Dataset]], search: Search | None) -> None:
        self._datasets = [open_side() for open_side in open_sides]
        self._search = search

    def __call__(self, shard: _Shard) -> tuple[np.ndarray, np.ndarray, int]:
        """Records of its rows, of its shingles, and how many rows have none."""
        dataset, row = self._datasets[shard.side], shard.first_row
        rows, runs = [np.empty(0, ROW_RECORD)], [np.empty(0, SHINGLE)]
        missed = 0
        for _, _, batch in dataset.batches(shard.number):
            if shard.hashed:
                rows.append(row_records(batch, shard.side))
            if self._search is not None:
                found, without = shingles(batch, dataset.tokenizer["vocab_size"], row, shard.side, self._search)
                runs.append(found)
                missed += without
            row += batch.rows
        return np.concatenate(rows), np.concatenate(runs), missed


def _read(
    asked: Asked, plans: list[Reading], progress: Callable[[int, int], None]
) -> tuple[RowCounts | None, dict[str, Any] | None]:
    """What the rows and the frames say; shards that need not be read are not."""
    compared = asked.rows and not asked.one_dataset
    twins = set.intersection(*(set(reading.shards["content_hash"].to_pylist()) for reading in plans))
    shards = [
        shard
        for side, reading in enumerate(plans)
        for shard in _shards(side, reading.shards, twins if compared else None)
        if shard.hashed or asked.search is not None
    ]
    total, done = sum(shard.rows for shard in shards), 0
    frames = sum(pc.sum(reading.shards["frames"]).as_py() or 0 for reading in plans)
    search = asked.search or Search()
    progress(0, total)
    with TemporaryDirectory(prefix="toto-diff-", ignore_cleanup_errors=True) as folder:
        matcher = RowMatcher(total, Path(folder))
        finder = RunFinder(search.frames, frames // search.every, Path(folder))
        make = partial(_Reading, [reading.open for reading in plans], asked.search)
        missed = [0, 0]
        for shard, (rows, runs, without) in each(make, shards, asked.workers):
            matcher.add(rows)
            finder.add(runs)
            missed[shard.side] += without
            done += shard.rows
            progress(done, total)
        counts = matcher.count()
        found = None if asked.search is None else finder.find()
    counts.equal += _rows_in(plans[0].shards, twins)
    facts = None if found is None else shared_facts(found, [reading.dataset for reading in plans], search, missed)
    return counts if compared else None, facts


def _shards(side: int, table: pa.Table, twins: set[str] | None) -> Iterator[_Shard]:
    """Every shard of a side; rows are hashed unless the other side has the same shard, or `twins` is None."""
    first = 0
    for number, (content, rows) in enumerate(
        zip(*(table[n].to_pylist() for n in ("content_hash", "rows")), strict=True)
    ):
        yield _Shard(side, number, first, rows, twins is not None and content not in twins)
        first += rows


def _rows_in(table: pa.Table, hashes: set[str]) -> int:
    return int(
        pc.sum(table.filter(pc.is_in(table["content_hash"], pa.array(hashes, pa.string())))["rows"]).as_py() or 0
    )


def _results(dataset: Dataset, split: str | None) -> pa.Table:
    results = final_results([dataset.sources()])
    return results if split is None else results.filter(pc.equal(results["split"], split))


def _about(dataset: Dataset, side: Side) -> dict[str, Any]:
    return {
        "uri": str(dataset.store.uri),
        "split": side.split,
        "dataset_id": dataset.dataset_id,
        "tokenizer": dataset.tokenizer["name"],
        "rows": len(dataset),
    }


def _source_facts(sources: Sources) -> dict[str, Any]:
    lists: dict[str, pa.Array] = {"both": sources.both, "only_a": sources.only_a, "only_b": sources.only_b}
    return {
        **{name: len(keys) for name, keys in lists.items()},
        "same_file": len(sources.same_file),
        "examples": {
            **{name: keys[:EXAMPLES].to_pylist() for name, keys in lists.items()},
            "same_file": sources.same_file[:EXAMPLES],
        },
    }
