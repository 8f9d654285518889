"""Takes up again sources that gave no row: new units with the next attempt number, then a run over them."""

import pyarrow as pa

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.shards.commit import read_commits
from toto.shards.manifest import final_results
from toto.shards.seal import read_results
from toto.shards.store import Store
from toto.shards.store.owner import open_target
from toto.tokenize.annotations import with_known_classes
from toto.tokenize.engine import Options, joined
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import Job
from toto.tokenize.plan import Plans, plan_retry, read_plans
from toto.tokenize.run import Result, list_all_splits, lists_split, work
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import Listing
from toto.tokenize.units import PlannedSource, planned


def retry(config: DatasetConfig, job: Job, options: Options, reason: str | None) -> Result:
    """Tries quarantined sources again (all, or those of one reason); raises UserError when there are none."""
    with joined(job, options), open_target(job.out) as store:
        listing = list_sources(config)
        while True:
            plans = read_plans(store)
            bad = _quarantined(store, reason, plans)
            if not bad.num_rows:
                which = f" with reason {reason!r}" if reason else ""
                raise UserError(
                    f"{job.out} has no quarantined sources{which}; `toto-tokenize status` shows what it has"
                )
            listing = with_known_classes(store, plans.annotations, listing)
            attempt = max(bad["attempt"].to_pylist()) + 1
            again = _planned_again(config, job, plans, listing, bad, options.limit)
            if plan_retry(store, job, plans, listing, again, attempt):
                return work(store, config, job, read_plans(store), listing, options)


def _quarantined(store: Store, reason: str | None, plans: Plans) -> pa.Table:
    """Final results without a row, but for sources of units that are still to be done: they get their turn anyway."""
    commits = read_commits(store)
    committed = {commit.unit for commit in commits}
    waiting = {s.key for unit in plans.units.values() if unit.id not in committed for s in unit.sources}
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
    now, wanted = listing.by_key, set(bad["key"].to_pylist())
    before = {source.key: source for source in plans.latest() if source.key in wanted}
    keys = [key for key in bad["key"].to_pylist() if key in now or lists_split(config, before[key].split)][:limit]
    if not keys:
        raise UserError(f"none of the {len(bad)} quarantined sources is of these splits; {list_all_splits(config)}")
    listed = [now[key] for key in keys if key in now]
    frames = dict(zip((s.key for s in listed), Estimator(job).kept_frames(listed), strict=True))
    return [planned(now[key], frames[key]) if key in now else before[key] for key in keys]
