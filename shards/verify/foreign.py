"""Files that no snapshot and no commit names: leftovers of a run that goes on or was killed, which do no harm, unless
they stand where a run would stumble over them.

Names are compared as Arrow arrays, folder by folder: a million shards take 0.1 GB at a time.
"""

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.shards.commit import COMMITS, SHARDS, SOURCES, Commit, FileRef, parse_commit
from toto.shards.parquet import read_parquet
from toto.shards.protocol_views import VIEWS
from toto.shards.snapshot import MANIFEST, PLAN, parse_snapshot
from toto.shards.store import Store
from toto.shards.verify.units import Findings, check_file

ANNOTATIONS = "annotations"


class Report(Protocol):
    """Where what is found is told."""

    problems: list[str]
    leftovers: list[str]

    def add(self, found: Findings) -> None:
        """Takes in what a part found."""
        ...


def find_foreign(store: Store, manifest: pa.Table, small: set[str], deep: bool, report: Report) -> None:
    """`small` are the files that the snapshot itself names; those of its units stand in the manifest."""
    known = small | {f"{PLAN}/canary.json"} | set(_older_snapshots(store, deep, report))
    commits = pc.binary_join_element_wise(f"{COMMITS}/", manifest["unit"], ".json", "")
    for commit in _unsealed(store, _beyond(store.list(COMMITS), commits)):
        known |= {f"{COMMITS}/{commit.unit}.json", commit.sources.path, *([commit.shard.path] if commit.shard else [])}
    told = {problem.partition(":")[0] for problem in report.problems}
    named = {SHARDS: manifest["path"], SOURCES: manifest["sources_path"], COMMITS: commits}
    for folder in (SHARDS, SOURCES, ANNOTATIONS, VIEWS, PLAN, MANIFEST, COMMITS):
        for name in _beyond(store.list(folder), named.get(folder)):
            if name in known or name in told:
                continue
            if folder == COMMITS or (name.endswith(".parquet") and not _is_table(store, name)):
                report.problems.append(f"{name}: foreign, or damaged; no run of toto would have left it")
            else:
                report.leftovers.append(name)


def _beyond(names: list[str], known: pa.ChunkedArray | None) -> list[str]:
    """The names that are not among the known ones."""
    if known is None or not names:
        return names
    listed = pa.array(names, pa.string())
    return listed.filter(pc.invert(pc.is_in(listed, known.combine_chunks()))).to_pylist()


def _older_snapshots(store: Store, deep: bool, report: Report) -> Iterator[str]:
    """Names of every snapshot in manifest/ and of what it names; damage is reported."""
    for name in (name for name in store.list(MANIFEST) if name.endswith(".json")):
        try:
            files = parse_snapshot(store.read(name), name).value["files"]
        except UserError as error:
            report.problems.append(str(error))
            continue
        yield name
        found = Findings()
        check_file(store, FileRef(**files["manifest"]), deep, found)
        report.add(found)
        named = [*files["annotations"].values(), *files.get("views", {}).values(), *files["plans"]]
        yield from (ref["path"] for ref in [files["manifest"], *named])


def _unsealed(store: Store, names: list[str]) -> Iterator[Commit]:
    """The commits that can be read among these, which the manifest does not hold."""
    for name in names:
        try:
            yield parse_commit(store.read(name), name)
        except (UserError, FileNotFoundError):
            continue  # told of as foreign


def _is_table(store: Store, name: str) -> bool:
    try:
        read_parquet(store.read(name))
    except (pa.ArrowException, OSError):
        return False
    return True
