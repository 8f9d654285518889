"""A run from listing to snapshot: plan what is new, do what no commit holds, seal. Run again, it goes on.

cluster, if one is named -> listing -> plans -> (plans - commits) -> engine -> seal -> snapshot
"""

import os
import platform
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from toto import __version__
from toto.config import DatasetConfig
from toto.errors import UserError
from toto.plain import counted
from toto.shards.commit import committed_units
from toto.shards.leftovers import refuse_strangers
from toto.shards.seal import seal
from toto.shards.snapshot import Snapshot
from toto.shards.store import Store
from toto.shards.store.owner import open_target
from toto.tokenize.changed import look
from toto.tokenize.crash import reached
from toto.tokenize.engine import Options, execute, joined
from toto.tokenize.estimate import Estimator
from toto.tokenize.event_log import EventLog
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.plan import Plans, extend_plans, read_plans
from toto.tokenize.planned import PlannedRows, PlannedSource
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.unfinished import remove_old
from toto.tokenize.units import Unit

FEW_SOURCES = 100  # below this many, a high share of bad ones says little


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    snapshot: Snapshot
    units_done: int  # in this run
    changed: list[str]  # keys of sources that are not the files any more that were planned, or that their rows are of
    changed_done: list[str]  # of these the ones that were done now, from the files as they are
    failure: str | None  # why the exit code is 1, when it is
    ignored: dict[str, int]  # what the listing left out: a suffix, or "(a reason)" -> count
    warnings: tuple[str, ...]  # which official lists are not there

    def summary(self) -> dict[str, Any]:
        """For `--json`."""
        value = self.snapshot.value
        return {
            "dataset_id": value["dataset_id"],
            **{name: value["totals"][name] for name in ("rows", "frames", "tokens", "bytes", "sources", "quarantined")},
            "quarantine": value["quarantine"],
            "units": value["units"],
            "units_done": self.units_done,
            "changed": self.changed,
            "changed_done": self.changed_done,
            "ignored": self.ignored,
            "warnings": self.warnings,
            "versions": value["made_by"]["versions"],
        }


def tokenize(config: DatasetConfig, job: Job, options: Options) -> Result:
    """Plans, does and seals; raises UserError for what stops the work, after sealing what is committed."""
    with joined(job, options), open_target(job.out) as store:
        if not read_plans(store).files:
            refuse_strangers(store)
        listing = list_sources(config)
        plans = extend_plans(store, job, listing, Estimator(job).kept_frames, options.limit)
        listing = replace(listing, annotations={})  # they are written, and may be as large as the rest
        return work(store, config, job, plans, listing, options)


def work(store: Store, config: DatasetConfig, job: Job, plans: Plans, listing: Listing, options: Options) -> Result:
    """Does the planned units that no commit holds, then seals, also when it is interrupted."""
    committed = committed_units(store)
    pending = [unit for unit in plans.units.values() if unit.id not in committed]
    todo = _without_unlisted(config, listing, pending)
    uris = SourceUris(config, listing)
    todo, changed = look(store, plans, SourceTable.of(listing.sources), todo, committed)
    log = EventLog(store)

    def seal_now() -> Snapshot:
        snapshot = seal(store, lambda: read_plans(store).spec(job), reached)
        if todo:
            log.event("seal", **_sealed(snapshot))
        return snapshot

    if todo:
        log.event(
            "run", **_begun(job, todo, len(plans.units) - len(pending), options), changed=changed.keys[:FEW_SOURCES]
        )
    try:
        if todo:
            remove_old(store)
            with Monitor(store, todo, len(plans.units) - len(pending), seal_now, log, options.quiet) as monitor:
                execute(job, todo, uris, monitor, options)
                _refuse_lost_commits(store, todo)
        snapshot = seal_now()
    except BaseException as error:
        with suppress(UserError, OSError):  # what stopped the work is the news
            seal_now()
        log.event("end", outcome=type(error).__name__, detail=str(error))
        raise
    if todo:
        log.event("end", outcome="finished")
        _warn_of_versions(snapshot)
    failure = judge(snapshot, config.max_bad_fraction)
    return Result(snapshot, len(todo), changed.keys, changed.todo, failure, listing.ignored, listing.warnings)


def _refuse_lost_commits(store: Store, todo: list[Unit]) -> None:
    """Raises UserError when workers have written elsewhere: to a folder of this name on a machine of their own."""
    lost = len({unit.id for unit in todo} - committed_units(store))
    if lost:
        raise UserError(
            f"{lost:,} of {counted(len(todo), 'unit')} done, but without a commit at {store.uri}\n"
            "all nodes must see this folder: put --out on a drive that they share, or in a bucket"
        )


def _warn_of_versions(snapshot: Snapshot) -> None:
    """Says when not one version of this program made the units: another may have decoded or rounded otherwise."""
    versions = snapshot.value["made_by"]["versions"]
    if len(versions) > 1:
        sys.stderr.write(f"warning: units of this dataset were made by different versions: {', '.join(versions)}\n")


def _begun(job: Job, todo: list[Unit], before: int, options: Options) -> dict[str, Any]:
    """What the log says of a run's beginning."""
    return {
        **{"version": __version__, "python": platform.python_version(), "host": socket.gethostname()},
        **{"pid": os.getpid(), "dataset": job.name, "tokenizer": job.tokenizer["name"]},
        **{"tokenizer_id": job.tokenizer["id"], "options": asdict(options)},
        **{"units": len(todo), "units_before": before},
        "frames": sum(unit.estimated_frames for unit in todo),
    }


def _sealed(snapshot: Snapshot) -> dict[str, Any]:
    """What the log says of a seal."""
    value = snapshot.value
    totals = {name: value["totals"][name] for name in ("rows", "frames", "tokens", "sources", "quarantined")}
    return {"dataset_id": value["dataset_id"], "units": value["units"], **totals, "made_by": value["made_by"]}


def lists_split(config: DatasetConfig, split: str) -> bool:
    """Whether this run's listing has every source of a split, so that one that it has not is gone."""
    return not config.split or split in config.split


def list_all_splits(config: DatasetConfig) -> str:
    """What to do where a source is needed that this run does not list."""
    return f"take datasets.{config.name}.split away, or put their splits into it"


def _without_unlisted(config: DatasetConfig, listing: Listing, pending: list[Unit]) -> list[Unit]:
    """The units that this run can do: of a split that it does not list, where sources lie is not known."""
    listed = SourceTable.of(listing.sources).by_key
    left = {
        unit.id: unit.split
        for unit in pending
        if not lists_split(config, unit.split) and (listed.rows(PlannedRows.of(unit.sources).keys) < 0).any()
    }
    if left:
        splits = ", ".join(sorted(set(left.values())))
        sys.stderr.write(
            f"planned units left undone: {len(left)}, of splits that this run does not list ({splits}); "
            f"{list_all_splits(config)}\n"
        )
    return [unit for unit in pending if unit.id not in left]


class SourceUris:
    """Where sources are read; one that is planned, and has gone since, is looked for at its key under the root."""

    def __init__(self, config: DatasetConfig, listing: Listing) -> None:
        self._root, self._listed = config.root.rstrip("/"), SourceTable.of(listing.sources)

    def of(self, sources: Sequence[PlannedSource]) -> dict[str, str]:
        """Key -> path or URI, of these."""
        keys = PlannedRows.of(sources).keys
        at = self._listed.by_key.rows(keys)
        uris = {key: f"{self._root}/{key}" for key in keys.to_pylist()}
        return uris | {source.key: source.uri for source in self._listed.take(at[at >= 0])}


def judge(snapshot: Snapshot, max_bad_fraction: float) -> str | None:
    """Why a finished run failed all the same, or None."""
    totals = snapshot.value["totals"]
    bad, tried = totals["quarantined"], totals["quarantined"] + totals["sources"]
    reasons = ", ".join(f"{name} {count}" for name, count in snapshot.value["quarantine"].items())
    if not totals["rows"]:
        return f"no source was usable: {tried} tried ({reasons}); each stands in quarantine.parquet with its reason"
    if tried >= FEW_SOURCES and bad > max_bad_fraction * tried:
        return (
            f"{bad} of {tried} sources gave no row ({reasons}), more than max_bad_fraction {max_bad_fraction:.1%} "
            "allows; the dataset is sealed without them"
        )
    return None
