"""One unit of a derived dataset, start to commit.

lines of the plan -> maker: rows, per-source results -> unfinished files -> read back -> published -> commit
"""

import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from toto import __version__
from toto.affinity import cores
from toto.errors import naming
from toto.shards import ids
from toto.shards.commit import COMMITS, SOURCES, Commit
from toto.shards.parquet import parquet_bytes
from toto.shards.publish import decide, publish, publish_shard
from toto.shards.rewrite.plan import DerivedUnit, Plan
from toto.shards.row_hash import RowSum
from toto.shards.schema import FORMAT_VERSION
from toto.shards.store import Store
from toto.shards.writer import ShardWriter


class Maker(Protocol):
    """Gives a unit its rows. It is pickled for other processes."""

    def make(self, unit: DerivedUnit, writer: ShardWriter, told: Callable[[int], None]) -> pa.Table:
        """Writes the unit's rows, in the order of its results (columns SOURCES_SCHEMA), which it returns."""
        ...


def make_unit(
    store: Store,
    plan: Plan,
    unit: DerivedUnit,
    maker: Maker,
    mark: str,
    told: Callable[[int], None],
    reached: Callable[[str], None],
) -> bool:
    """Makes and commits one unit; False when somebody else committed it first. Unfinished files have this mark."""
    began, (shard_path, results_path) = time.monotonic(), (_unfinished(store, mark), _unfinished(store, mark))
    rows = RowSum()
    try:
        with naming(shard_path.parent):
            writer = ShardWriter(shard_path, ids.id_dtype(plan.tokenizer["vocab_size"]), _facts(plan, unit))
            try:
                results = maker.make(unit, writer, told)
                summary = writer.close()
            finally:
                writer.abandon()
            results_path.write_bytes(parquet_bytes(results))
        reached("after_shard_closed")
        shard = publish_shard(store, shard_path, unit.id, summary, rows.add)
        reached("after_shard")
        sources = publish(store, results_path, f"{SOURCES}/{unit.id}", "parquet")
        reached("after_sources")
        made_by = {"version": __version__, "host": socket.gethostname(), "cores": cores()}
        commit = Commit(
            unit=unit.id,
            attempt=0,
            split=unit.split,
            sources=sources,
            shard=shard,
            **asdict(summary),
            tokenizer_id=plan.tokenizer["id"],
            canary=plan.facts["canary"],
            made_by={**made_by, "seconds": round(time.monotonic() - began, 3), "row_hash": rows.hex},
        )
        return decide(store, commit, reached)
    except FileNotFoundError:  # another one that lost made the same file and has taken it away already
        if not store.exists(f"{COMMITS}/{unit.id}.json"):
            raise
        return False
    finally:
        shard_path.unlink(missing_ok=True)
        results_path.unlink(missing_ok=True)


def remove_unfinished(store: Store, mark: str) -> None:
    """Removes what processes that are gone have left with this mark."""
    for path in store.scratch().parent.glob(f"{mark}-*"):
        path.unlink(missing_ok=True)


def _unfinished(store: Store, mark: str) -> Path:
    path = store.scratch()
    return path.with_name(f"{mark}-{path.name}")


def start_of(units: int) -> int:
    """With which of so many units this process begins: two at work on one target seldom make the same unit."""
    return os.getpid() % max(units, 1)


def _facts(plan: Plan, unit: DerivedUnit) -> dict[str, object]:
    """The constant facts in a shard's schema metadata."""
    return {
        "format_version": FORMAT_VERSION,
        "dataset": plan.facts["name"],
        "unit": unit.id,
        "split": unit.split,
        "tokenizer": plan.tokenizer,
        "id_layout": ids.ID_LAYOUT,
        "settings": plan.settings,
    }
