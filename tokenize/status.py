"""Where a target stands, read from its files alone: from any process, while a run goes on or after."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from toto.errors import UserError
from toto.shards.commit import read_commits
from toto.shards.manifest import final_results
from toto.shards.seal import read_results
from toto.shards.store import Store
from toto.tokenize.monitor import running
from toto.tokenize.plan import read_plans


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
    return Status(
        planned_units=len(plans.units),
        committed_units=len(commits),
        planned_sources=plans.sources,
        results=Counter(reason or "ok" for reason in final["reason"].to_pylist()),
        rows=sum(commit.rows for commit in commits),
        tokens=sum(commit.tokens for commit in commits),
        running=running(store),
    )
