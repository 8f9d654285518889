"""Where a target stands, read from its files alone: from any process, while a run goes on or after."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from toto.errors import UserError
from toto.shards.commit import committed_units, read_commits
from toto.shards.manifest import final_results
from toto.shards.seal import read_results
from toto.shards.store import Store
from toto.tokenize.monitor import running
from toto.tokenize.plan import read_plans
from toto.tokenize.planned import PlannedRows
from toto.tokenize.sources.source_table import SourceTable

FEW = 3


@dataclass(frozen=True)
class Status:
    """Done, left, quarantined, and what is running."""

    planned_units: int
    committed_units: int
    planned_sources: int
    results: Counter[str]  # "ok" or a quarantine reason -> sources
    rows: int
    tokens: int
    running: list[dict[str, Any]]
    first_quarantined: dict[str, str]  # the first few keys -> their reasons

    def value(self) -> dict[str, Any]:
        """For `--json`."""
        return {**vars(self), "results": dict(self.results)}


def status(store: Store) -> Status:
    """Reads plans, commits and results; UserError when nothing was planned here."""
    plans = read_plans(store)
    if not plans.files:
        raise UserError(f"nothing is planned at {store.uri}; `toto-tokenize run DATASET` starts it")
    commits = read_commits(store)
    final = final_results(read_results(store, commits))
    bad = final.filter(pc.is_valid(final["reason"])).slice(0, FEW)
    return Status(
        planned_units=len(plans.units),
        committed_units=len(commits),
        planned_sources=plans.sources,
        results=Counter(reason or "ok" for reason in final["reason"].to_pylist()),
        rows=sum(commit.rows for commit in commits),
        tokens=sum(commit.tokens for commit in commits),
        running=running(store),
        first_quarantined=dict(zip(bad["key"].to_pylist(), bad["reason"].to_pylist(), strict=True)),
    )


def done_before(store: Store, listed: SourceTable) -> int:
    """How many of these sources are in units that a commit holds; 0 where nothing was planned."""
    committed, done = committed_units(store), np.zeros(len(listed), bool)
    for unit in read_plans(store).units.values():
        if unit.id in committed:
            at = listed.by_key.rows(PlannedRows.of(unit.sources).keys)
            done[at[at >= 0]] = True
    return int(done.sum())
