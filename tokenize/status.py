"""Where a target stands, read from its files alone: from any process, while a run goes on or after."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from toto.errors import UserError
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, committed_units, read_commits
from toto.shards.manifest import final_results
from toto.shards.seal import read_results
from toto.shards.store import SCRATCH, Store
from toto.tokenize.monitor import running
from toto.tokenize.plan import read_plans

GARBAGE_AGE_S = 24 * 3600


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


def clean(store: Store, older_than_s: float = GARBAGE_AGE_S) -> list[str]:
    """Removes what no commit names and what unfinished runs left, when old enough; returns the names."""
    commits = read_commits(store, committed_units(store))
    named = {name for commit in commits for name in _names(commit)}
    garbage = [name for folder in (SHARDS, SOURCES) for name in store.list(folder) if name not in named]
    old = [name for name in garbage + store.list(SCRATCH) if store.age_s(name) > older_than_s]
    for name in old:
        store.remove(name)
    return [*old, *store.abort_uploads(older_than_s)]


def _names(commit: Commit) -> list[str]:
    return [
        f"{COMMITS}/{commit.unit}.json",
        commit.sources.path,
        *([commit.shard.path] if commit.shard else []),
    ]
