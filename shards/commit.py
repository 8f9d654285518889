"""Commits: the small files that alone decide which shards and results belong to a dataset.

    commits/<unit>.json  ->  shards/<unit>-<first 8 hex of its sha256>.arrow
                             sources/<unit>-<first 8 hex of its sha256>.parquet

A commit is created exclusively after both files are written, read back and checked. What no commit names is garbage.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from toto.errors import UserError
from toto.shards.hashing import json_sha256
from toto.shards.schema import FORMAT_VERSION
from toto.shards.store import Store
from toto.shards.untrusted.shape import SIZE, misshapen

COMMITS, SHARDS, SOURCES = "commits", "shards", "sources"
_FILE = {"path": str, "bytes": SIZE, "sha256": str}
SHAPE: dict[str, Any] = {
    **dict.fromkeys(("unit", "split", "content_hash", "tokenizer_id"), str),
    **dict.fromkeys(("attempt", "rows", "frames", "tokens"), SIZE),
    "batch_rows": [SIZE],
    "sources": _FILE,
    "canary": dict,
    "made_by": dict,
}


@dataclass(frozen=True)
class FileRef:
    """A file of the dataset: where it is (relative), how long, and the sha256 of its bytes."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """One finished unit. `shard` is None when no source of the unit gave a row."""

    unit: str
    attempt: int
    split: str
    sources: FileRef
    shard: FileRef | None
    rows: int
    frames: int
    tokens: int
    batch_rows: list[int]
    content_hash: str
    tokenizer_id: str
    canary: dict[str, Any] = field(default_factory=dict)  # {"ids": hash of the codes, "differs": share}
    made_by: dict[str, Any] = field(default_factory=dict)  # version, host, device, seconds
    format_version: int = FORMAT_VERSION

    def to_json(self) -> bytes:
        """The file's bytes, at most 4 KB, with their own hash in `sha256`."""
        value = asdict(self)
        return json.dumps({**value, "sha256": json_sha256(value)}, sort_keys=True).encode() + b"\n"


def parse_commit(data: bytes, name: str) -> Commit:
    """A commit file's bytes -> Commit; UserError when it is damaged or of another format."""
    try:
        value = json.loads(data)
        claimed, version = value.pop("sha256"), value["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(f"{name}: format version {version}; this toto reads version {FORMAT_VERSION}")
        wrong = misshapen(value, {**SHAPE, **({} if value["shard"] is None else {"shard": _FILE})})
        if wrong is not None:
            raise ValueError(f"{wrong} is missing, or of a wrong type")
        shard = value["shard"] and FileRef(**value["shard"])
        commit = Commit(**{**value, "sources": FileRef(**value["sources"]), "shard": shard})
        if claimed != json_sha256(value) or commit.to_json() != data:
            raise ValueError("its own hash does not match")
        if name != f"{COMMITS}/{commit.unit}.json":
            raise ValueError(f"it is the commit of unit {commit.unit}")
        return commit
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{name}: not a readable commit ({error}); it was changed after it was written") from None


def committed_units(store: Store) -> set[str]:
    """Ids of the units that are done; one listing, no file is opened."""
    names = (name.rpartition("/")[2] for name in store.list(COMMITS))
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def read_commits(store: Store, units: set[str] | None = None) -> list[Commit]:
    """The commits of these units (all by default), sorted by unit id."""
    chosen = sorted(committed_units(store) if units is None else units)
    names = [f"{COMMITS}/{unit}.json" for unit in chosen]
    return [parse_commit(data, name) for data, name in zip(store.read_all(names), names, strict=True)]
