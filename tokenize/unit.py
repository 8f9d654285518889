"""One unit, start to commit; the same function under Ray and under `local`.

    for each source: decode (killable child) -> blocks -> codes, which may come later -> rows -> the unfinished shard
    shard and per-source results: temporary file, fsync, rename to a name with their hash, read back, compare
    commits/<unit>.json, created exclusively, decides

Everything before the commit can be killed and done again; of two workers on one unit the first commit wins and the
other's files go.
"""

import os
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from toto import __version__
from toto.affinity import cores
from toto.errors import naming
from toto.shards import ids
from toto.shards.commit import COMMITS, SOURCES, Commit, FileRef
from toto.shards.parquet import parquet_bytes
from toto.shards.publish import decide, publish, publish_shard
from toto.shards.schema import FORMAT_VERSION, SOURCES_SCHEMA
from toto.shards.writer import ShardSummary, ShardWriter
from toto.tokenize.changed import found_facts
from toto.tokenize.crash import reached
from toto.tokenize.flight import Flight
from toto.tokenize.job import Job
from toto.tokenize.one_source import OpenSource
from toto.tokenize.transient import ERRNOS, PAUSES_S
from toto.tokenize.unfinished import unfinished
from toto.tokenize.units import Unit
from toto.tokenize.worker import Worker

NOBODY: Mapping[str, tuple[str, str]] = MappingProxyType({})


@dataclass(frozen=True)
class UnitReport:
    """What a worker tells of a unit that it committed; for the log."""

    rows: int
    frames: int
    tokens: int
    sources: int
    seconds: float
    worker: dict[str, Any]  # host, pid; under Ray also node
    quarantined: list[tuple[str, str, str]]  # key, reason, detail


def run_unit(
    worker: Worker, unit: Unit, uris: Mapping[str, str], blamed: Mapping[str, tuple[str, str]] = NOBODY
) -> UnitReport | None:
    """Does one unit; None when another worker committed it first. `uris` says where each source key is read.

    `blamed`: key -> (reason, detail) of sources that are known to kill workers; they are quarantined unread.
    Where the way to the target fails (a network drive), the unit is done anew after a pause, three times at most.
    """
    for pause_s in PAUSES_S:
        try:
            return _do_unit(worker, unit, uris, blamed)
        except OSError as error:
            if error.errno not in ERRNOS:
                raise
            time.sleep(pause_s)
    return _do_unit(worker, unit, uris, blamed)


def _do_unit(
    worker: Worker, unit: Unit, uris: Mapping[str, str], blamed: Mapping[str, tuple[str, str]]
) -> UnitReport | None:
    started = time.monotonic()
    shard_path, results_path = unfinished(worker.store), unfinished(worker.store)
    try:
        with naming(shard_path.parent):
            lines, summary = _write_shard(worker, unit, uris, blamed, shard_path)
            schema = SOURCES_SCHEMA.with_metadata(found_facts(unit))
            results_path.write_bytes(parquet_bytes(pa.Table.from_pylist(lines, schema)))
        reached("after_shard_closed")
        shard = publish_shard(worker.store, shard_path, unit.id, summary)
        reached("after_shard")
        sources = publish(worker.store, results_path, f"{SOURCES}/{unit.id}", "parquet")
        reached("after_sources")
        if not _decide(worker, unit, shard, sources, summary, time.monotonic() - started):
            return None
        return _report(lines, summary, time.monotonic() - started)
    except FileNotFoundError:  # another one that lost made the same file and has taken it away already
        if not worker.store.exists(f"{COMMITS}/{unit.id}.json"):
            raise
        return None
    finally:
        shard_path.unlink(missing_ok=True)
        results_path.unlink(missing_ok=True)


def _report(lines: list[dict[str, Any]], summary: ShardSummary, seconds: float) -> UnitReport:
    bad = [(line["key"], line["reason"], line["detail"]) for line in lines if line["status"] != "ok"]
    return UnitReport(summary.rows, summary.frames, summary.tokens, len(lines), round(seconds, 3), whoami(), bad)


def whoami() -> dict[str, Any]:
    """The process that does a unit."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _write_shard(
    worker: Worker, unit: Unit, uris: Mapping[str, str], blamed: Mapping[str, tuple[str, str]], path: Path
) -> tuple[list[dict[str, Any]], ShardSummary]:
    """Every source of the unit, in order: their rows go into the shard, their results are returned."""
    writer = ShardWriter(path, ids.id_dtype(worker.job.tokenizer["vocab_size"]), shard_facts(worker.job, unit))
    flight = Flight(worker.encoder.ahead)
    begun: deque[OpenSource] = deque()  # decoded, oldest first; their codes may be on the way
    lines: list[dict[str, Any]] = []
    try:
        for source in unit.sources:
            blame = blamed.get(source.key)
            begun.append(OpenSource(worker, flight, source, uris[source.key], unit.attempt, blame))
            while begun and begun[0].settled:
                lines.append(begun.popleft().finish(writer.write))
        flight.land()
        lines += [source.finish(writer.write) for source in begun]
        return lines, writer.close()
    finally:
        for unfinished in begun:
            unfinished.close()
        writer.abandon()


def shard_facts(job: Job, unit: Unit) -> dict[str, Any]:
    """The constant facts in a shard's schema metadata."""
    return {
        "format_version": FORMAT_VERSION,
        "dataset": job.name,
        "unit": unit.id,
        "split": unit.split,
        "tokenizer": job.tokenizer,
        "id_layout": ids.ID_LAYOUT,
        "settings": job.settings,
    }


def _decide(
    worker: Worker, unit: Unit, shard: FileRef | None, sources: FileRef, summary: ShardSummary, seconds: float
) -> bool:
    """Creates the commit; False when somebody else did."""
    commit = Commit(
        unit=unit.id,
        attempt=unit.attempt,
        split=unit.split,
        sources=sources,
        shard=shard,
        **asdict(summary),
        tokenizer_id=worker.job.tokenizer["id"],
        canary=worker.encoder.canary,
        made_by={
            "version": __version__,
            "host": socket.gethostname(),
            "cores": cores(),
            "seconds": round(seconds, 3),
        },
    )
    return decide(worker.store, commit, reached)
