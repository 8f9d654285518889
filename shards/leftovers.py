"""What interrupted runs left behind: files that no commit names, unfinished ones, uploads that never ended."""

from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, committed_units, read_commits
from toto.shards.store import SCRATCH, Store

GARBAGE_AGE_S = 24 * 3600


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
