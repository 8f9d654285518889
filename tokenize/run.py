"""A run from listing to snapshot: plan what is new, do what no commit holds, seal. Run again, it goes on.

listing -> plans -> (plans - commits) -> engine -> seal -> snapshot
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.shards.commit import committed_units
from toto.shards.seal import seal
from toto.shards.snapshot import Snapshot
from toto.shards.store import Store, open_store, prove_exclusive
from toto.tokenize import engine_local
from toto.tokenize.crash import reached
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import Job
from toto.tokenize.monitor import Monitor
from toto.tokenize.plan import Plans, extend_plans, read_plans
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import Listing
from toto.tokenize.units import Unit

FEW_SOURCES = 100  # below this many, a high share of bad ones says little


@dataclass(frozen=True)
class Options:
    """How to run; none of it changes a row."""

    engine: str = "ray"  # "local", "ray" (a Ray of our own), or the address of a cluster
    workers: int | None = None
    tokenizer_actors: int = 0
    limit: int | None = None
    quiet: bool = False


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    snapshot: Snapshot
    units_done: int  # in this run
    changed: list[str]  # keys of sources that are not the files any more that were planned
    failure: str | None  # why the exit code is 1, when it is

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
        }


def tokenize(config: DatasetConfig, job: Job, options: Options) -> Result:
    """Plans, does and seals; raises UserError for what stops the work, after sealing what is committed."""
    store = prepare(job)
    listing = list_sources(config)
    plans = extend_plans(store, job, listing, Estimator(job).kept_frames, options.limit)
    return work(store, config, job, plans, listing, options)


def prepare(job: Job) -> Store:
    """Opens the target and proves that it can hold commits."""
    store = open_store(job.out)
    try:
        prove_exclusive(store)
    except (NotADirectoryError, FileExistsError):
        raise UserError(f"{job.out} cannot be a folder (a file is in the way); choose another --out") from None
    return store


def work(store: Store, config: DatasetConfig, job: Job, plans: Plans, listing: Listing, options: Options) -> Result:
    """Does the planned units that no commit holds, then seals, also when it is interrupted."""
    committed = committed_units(store)
    todo = [unit for unit in plans.units.values() if unit.id not in committed]
    uris = source_uris(config, listing, todo)

    def seal_now() -> Snapshot:
        return seal(store, lambda: read_plans(store).spec(job), reached)

    try:
        if todo:
            with Monitor(store, todo, len(plans.units) - len(todo), seal_now, options.quiet) as monitor:
                _execute(job, todo, uris, monitor, options)
    except BaseException:
        with suppress(UserError, OSError):  # what stopped the work is the news
            seal_now()
        raise
    snapshot = seal_now()
    return Result(snapshot, len(todo), changed_sources(plans, listing), judge(snapshot, config.max_bad_fraction))


def source_uris(config: DatasetConfig, listing: Listing, units: list[Unit]) -> dict[str, str]:
    """Where each planned source is read; one that has gone since is looked for at its key under the root."""
    listed = {source.key: source.uri for source in listing.sources}
    root = config.root.rstrip("/")
    return {s.key: listed.get(s.key, f"{root}/{s.key}") for unit in units for s in unit.sources}


def changed_sources(plans: Plans, listing: Listing) -> list[str]:
    """Keys of planned sources whose size, time or etag differ now; they are reported, never done again."""
    now = {source.key: (source.size, source.mtime_us, source.etag) for source in listing.sources}
    planned = {s.key: (s.size, s.mtime_us, s.etag) for unit in plans.units.values() for s in unit.sources}
    return sorted(key for key, facts in planned.items() if key in now and now[key] != facts)


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


def _execute(job: Job, todo: list[Unit], uris: dict[str, str], monitor: Monitor, options: Options) -> None:
    if options.engine == "local":
        engine_local.execute(job, todo, uris, monitor)
        return
    from toto.tokenize.engine_ray import execute
    from toto.tokenize.ray_session import Cluster

    address = None if options.engine == "ray" else options.engine
    execute(job, todo, uris, monitor, Cluster(address, options.workers, options.tokenizer_actors))
