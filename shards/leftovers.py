"""What interrupted runs left behind: files that no commit names, unfinished ones, uploads that never ended.

Only names of the form that toto gives are ever removed; what else lies in a dataset's folders is somebody's own.
"""

import re

from toto.errors import UsageError
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, committed_units, read_commits
from toto.shards.seal import CARD, QUARANTINE
from toto.shards.snapshot import DATASET
from toto.shards.store import SCRATCH, Store

GARBAGE_AGE_S = 24 * 3600
FEW = 3
OURS = {
    SHARDS: re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.arrow"),
    SOURCES: re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.parquet"),
    SCRATCH: re.compile(r"([0-9a-f]{12}-)?\d+-[0-9a-f]{12}|probe-[0-9a-f]{12}|progress-.+-\d+\.json|(run|seal)\.lock"),
}


def clean(store: Store, older_than_s: float = GARBAGE_AGE_S) -> list[str]:
    """Removes what no commit names and what unfinished runs left, when old enough; returns the names."""
    commits = read_commits(store, committed_units(store))
    named = {name for commit in commits for name in _names(commit)}
    garbage = [name for folder in OURS for name in store.list(folder) if name not in named and _is_ours(name)]
    old = [name for name in garbage if store.age_s(name) > older_than_s]
    for name in old:
        store.remove(name)
    return [*old, *store.abort_uploads(older_than_s)]


def refuse_strangers(store: Store) -> None:
    """UsageError where a new dataset would stand among files that are not toto's, or write over them."""
    if store.exists(DATASET):
        return
    there = [name for folder in OURS for name in store.list(folder) if not _is_ours(name)]
    there += [name for name in (CARD, QUARANTINE) if store.exists(name)]
    if there:
        refuse(store, there)


def refuse(store: Store, there: list[str]) -> None:
    """UsageError: these files are in the way of a new dataset."""
    few = ", ".join(there[:FEW]) + (", …" if len(there) > FEW else "")
    raise UsageError(f"{store.uri} holds files that are no part of a dataset ({few}); give --out a folder of its own")


def _is_ours(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return OURS[folder].fullmatch(rest) is not None


def _names(commit: Commit) -> list[str]:
    return [
        f"{COMMITS}/{commit.unit}.json",
        commit.sources.path,
        *([commit.shard.path] if commit.shard else []),
    ]
