"""Takes up again sources that gave no row: new units with the next attempt number, then a run over them."""

import numpy as np
import pyarrow as pa

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.plain import counted
from toto.shards.commit import read_commits
from toto.shards.manifest import final_results
from toto.shards.seal import read_results
from toto.shards.store import Store, open_store
from toto.shards.store.owner import open_target
from toto.tokenize.annotations import with_known_classes
from toto.tokenize.engine import Options, joined
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import Job
from toto.tokenize.plan import FOLDER, Plans, plan_retry, read_plans, refuse_other_settings
from toto.tokenize.planned import PlannedRows, PlannedSource, planned
from toto.tokenize.run import Result, list_all_splits, lists_split, work
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.source_table import SourceTable


def retry(config: DatasetConfig, job: Job, options: Options, reason: str | None) -> Result:
    """Tries quarantined sources again (all, or those of one reason), and does what an earlier run left.

    Where there are none, that is all it does. UserError where nothing is planned.
    """
    if not open_store(job.out).list(FOLDER):  # looked at before anything is written there
        raise UserError(f"nothing is planned at {job.out}; `toto-tokenize run {config.name}` starts it")
    with joined(job, options), open_target(job.out) as store:
        listing = list_sources(config)
        while True:
            plans = read_plans(store)
            refuse_other_settings(plans, job, store.uri)
            bad = _quarantined(store, reason, plans)
            if not bad.num_rows:
                return work(store, config, job, plans, listing, options)
            listing = with_known_classes(store, plans.annotations, listing)
            attempt = max(bad["attempt"].to_pylist()) + 1
            again = _planned_again(config, job, plans, listing, bad, options.limit)
            if plan_retry(store, job, plans, listing, again, attempt):
                return work(store, config, job, read_plans(store), listing, options)


def _quarantined(store: Store, reason: str | None, plans: Plans) -> pa.Table:
    """Final results without a row, but for sources of units that are still to be done: they get their turn anyway."""
    commits = read_commits(store)
    committed = {commit.unit for commit in commits}
    left = (PlannedRows.of(unit.sources) for unit in plans.units.values() if unit.id not in committed)
    waiting = {key for rows in left for key in rows.keys.to_pylist()}
    results = final_results(read_results(store, commits))
    columns = (results[name].to_pylist() for name in ("key", "status", "reason"))
    wanted = [
        status != "ok" and reason in (None, why) and key not in waiting
        for key, status, why in zip(*columns, strict=True)
    ]
    return results.filter(pa.array(wanted, pa.bool_()))


def _planned_again(
    config: DatasetConfig, job: Job, plans: Plans, listing: Listing, bad: pa.Table, limit: int | None
) -> list[PlannedSource]:
    """The sources as they are listed now (they may have been replaced), or as they were planned when they are gone.

    UserError when all are of splits that this run does not list.
    """
    every = bad["key"].to_pylist()
    listed = SourceTable.of(listing.sources)
    at = listed.by_key.rows(bad["key"])
    now = {source.key: source for source in listed.take(at[at >= 0])}
    gone = set(every) - now.keys()
    before = {source.key: source for part in plans.latest() for source in _these(part, gone)} if gone else {}
    keys = [key for key in every if key in now or lists_split(config, before[key].split)][:limit]
    if not keys:
        raise UserError(
            f"of {counted(len(bad), 'quarantined source')}, none is of these splits; {list_all_splits(config)}"
        )
    again = SourceTable.of(now[key] for key in keys if key in now)
    frames = dict(zip(again.keys.to_pylist(), map(int, Estimator(job).kept_frames(again)), strict=True))
    return [planned(now[key], frames[key]) if key in now else before[key] for key in keys]


def _these(planned_before: PlannedRows, keys: set[str]) -> PlannedRows:
    return planned_before.where(np.array([key in keys for key in planned_before.keys.to_pylist()], bool))
