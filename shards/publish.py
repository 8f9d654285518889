"""How a finished unit becomes part of a dataset, whoever made its rows.

    unfinished file -> read back, compared -> published under a name with its hash -> read back -> commit, created once

Everything before the commit can be killed and done again. Of two that did one unit the first commit wins, and the
other's files go.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from toto.errors import UserError
from toto.shards.commit import COMMITS, SHARDS, Commit, FileRef, parse_commit
from toto.shards.hashing import ContentHasher, file_sha256
from toto.shards.reader import ShardReader
from toto.shards.store import Store
from toto.shards.writer import ShardSummary


def publish_shard(
    store: Store,
    path: Path,
    unit: str,
    summary: ShardSummary,
    seen: Callable[[pa.RecordBatch], None] = lambda batch: None,
) -> FileRef | None:
    """Reads the shard back before it gets its name; None when no source gave a row. `seen` gets what was read."""
    if not summary.rows:
        return None
    with ShardReader(path, f"{SHARDS}/{unit}") as reader:
        hasher = ContentHasher(reader.schema)
        for i in range(reader.batches):
            seen(reader.batch(i, hasher))
    if hasher.hexdigest() != summary.content_hash:
        raise UserError(f"{store.uri}: the shard of unit {unit} does not read back as written; check this disk")
    return publish(store, path, f"{SHARDS}/{unit}", "arrow")


def publish(store: Store, path: Path, stem: str, suffix: str) -> FileRef:
    """Gives a finished file the name that holds its hash, and checks what is there under it."""
    digest, size = file_sha256(path), path.stat().st_size
    ref = FileRef(f"{stem}-{digest[:8]}.{suffix}", size, digest)
    store.publish(path, ref.path)
    if store.size(ref.path) != size or store.sha256(ref.path) != digest:
        raise UserError(f"{store.uri}/{ref.path} does not read back as written; check this disk")
    return ref


def decide(store: Store, commit: Commit, reached: Callable[[str], None]) -> bool:
    """Creates the commit; when somebody else did, removes what that one does not name. `reached` is told each step."""
    name = f"{COMMITS}/{commit.unit}.json"
    reached("before_commit")
    if store.create(name, commit.to_json()):
        reached("after_commit")
        return True
    winner = parse_commit(store.read(name), name)
    for mine, theirs in ((commit.shard, winner.shard), (commit.sources, winner.sources)):
        if mine is not None and (theirs is None or mine.path != theirs.path):
            store.remove(mine.path)
    return False
