"""dataset.json: the sealed snapshot that readers see. It carries its own hash and names all other files with theirs."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from string import hexdigits
from typing import Any

from toto.errors import UserError
from toto.shards.hashing import canonical_json, json_sha256
from toto.shards.schema import FORMAT_VERSION, other_version
from toto.shards.store import LocalStore, Store
from toto.shards.untrusted.shape import SIZE, misshapen

DATASET = "dataset.json"
MANIFEST = "manifest"
PLAN = "plan"
ID_DIGITS = 64
MAX_BYTES = 64 << 20  # of dataset.json; a plan that grows by a file a day for 30 years adds 2 MB
_FILE = {"path": str, "bytes": SIZE, "sha256": str}
_COUNTS = dict.fromkeys(("shards", "rows", "frames", "tokens", "bytes"), SIZE)
SHAPE: dict[str, Any] = {
    **dict.fromkeys(("dataset_id", "name", "toto_version", "sealed_at"), str),
    "tokenizer": {"name": str, "id": str, "vocab_size": SIZE},
    "id_layout": {str: int},
    "settings": {"keep_pixels?": int | None, "views?": int | None},
    "annotations": {str: str},
    "totals": {**_COUNTS, "sources": SIZE, "quarantined": SIZE, "hours": int | float},
    "splits": {str: _COUNTS},
    "units": {"committed": SIZE, "planned": SIZE},
    "quarantine": {str: SIZE},
    "made_by": dict,
    "files": {
        **dict.fromkeys(("manifest", "quarantine", "card"), _FILE),
        "annotations": {str: _FILE},
        "views?": {str: _FILE},
        "plans": [_FILE],
    },
}


@dataclass(frozen=True)
class Snapshot:
    """The content of one dataset.json."""

    value: dict[str, Any]

    @property
    def dataset_id(self) -> str:
        """64 hex digits over everything that decides the content."""
        return str(self.value["dataset_id"])


def dataset_id(
    tokenizer_id: str, settings: dict[str, Any], units: Iterable[tuple[str, str]], annotations: dict[str, str]
) -> str:
    """sha256 over format version, tokenizer, content settings, (unit id, content hash) pairs, annotation hashes.

    The pairs come sorted, so that a million of them need not be held; ValueError where they do not.
    """
    value = {
        "annotations": annotations,
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "tokenizer": tokenizer_id,
        "units": [],  # the last one in canonical JSON
    }
    hasher, before = hashlib.sha256(canonical_json(value).removesuffix(b"]}")), ("", "")
    for pair in units:
        if pair <= before:
            raise ValueError(f"unit {pair[0]} does not come after unit {before[0]}")
        hasher.update((b"," if before[0] else b"") + canonical_json(pair))
        before = pair
    hasher.update(b"]}")
    return hasher.hexdigest()


def snapshot_bytes(value: dict[str, Any]) -> bytes:
    """dataset.json's bytes, with its own hash in `sha256`."""
    return json.dumps({**value, "sha256": json_sha256(value)}, indent=1, sort_keys=True).encode() + b"\n"


def parse_snapshot(data: bytes, where: str) -> Snapshot:
    """dataset.json's bytes -> Snapshot; UserError when it is damaged or of another format version."""
    try:
        value = json.loads(data) if len(data) <= MAX_BYTES else {}
        claimed = value.pop("sha256")
        version = value["format_version"]
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(f"{where}: not a dataset.json that toto wrote, or damaged") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{where}: {other_version(version, value.get('toto_version'))}")
    if not _is_as_sealed(value, claimed, data):
        raise UserError(f"{where}: its own hash does not match; the file was changed after it was sealed")
    wrong = [place for key in SHAPE if (place := misshapen(value, {key: SHAPE[key]})) is not None]
    if wrong:
        raise UserError(
            f"{where}: not a dataset.json that toto wrote ({', '.join(wrong)[:200]} missing or of a wrong type)"
        )
    return Snapshot(value)


def _is_as_sealed(value: dict[str, Any], claimed: str, data: bytes) -> bool:
    try:
        return claimed == json_sha256(value) and snapshot_bytes(value) == data
    except (ValueError, RecursionError):  # what JSON cannot hold, such as NaN or half a character
        return False


class NoSuchSnapshot(UserError):
    """A place does not hold the snapshot that was asked for; whoever asked knows what to do about it."""


def read_snapshot(store: Store, wanted: str | None = None) -> Snapshot:
    """The current snapshot, or the one whose id starts with `wanted` (old ones stay beside their manifests). A whole id
    names its file: stores that list nothing give it too."""
    name = DATASET
    if wanted is not None and len(wanted) == ID_DIGITS and set(wanted) <= set(hexdigits):
        name = f"{MANIFEST}/{wanted}.json"
    elif wanted is not None:
        known = [n for n in store.list(MANIFEST) if n.endswith(".json")]
        matching = [n for n in known if n.removeprefix(f"{MANIFEST}/").startswith(wanted)]
        if not matching:
            raise _no_such(store, wanted)
        if len(matching) > 1:
            raise UserError(
                f"{store.uri}: {len(matching)} snapshots with id {wanted!r}; there are {len(known)} in manifest/"
            )
        name = matching[0]
    try:
        found = parse_snapshot(store.read(name), f"{store.uri}/{name}")
    except (FileNotFoundError, NotADirectoryError) as missing:
        if wanted is not None:
            raise _no_such(store, wanted) from None
        if isinstance(missing, NotADirectoryError):
            raise UserError(f"{store.uri} is a file; a dataset is a folder that holds dataset.json") from None
        out = "" if _is_taken(store) else f" --out {store.uri}"
        raise UserError(
            f"no dataset at {store.uri} (no dataset.json); `toto-tokenize run DATASET{out}` makes one"
        ) from None
    except (OSError, UserError):
        raise
    except Exception as error:  # an object store's own: no credentials, no such bucket
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read {store.uri} ({type(error).__name__}: {reason})") from None
    if wanted is not None and not found.dataset_id.startswith(wanted):
        raise UserError(f"{store.uri}/{name}: holds the snapshot {found.dataset_id} instead")
    return found


def _no_such(store: Store, wanted: str) -> NoSuchSnapshot:
    """Says what is there in its place."""
    try:
        there = parse_snapshot(store.read(DATASET), f"{store.uri}/{DATASET}")
    except (FileNotFoundError, NotADirectoryError):
        return NoSuchSnapshot(f"{store.uri}: 0 snapshots with id {wanted!r}; no dataset there (no {DATASET})")
    tokenizer = there.value["tokenizer"]
    holds = (
        f"it holds another dataset (id {there.dataset_id[:12]}, tokenizer {tokenizer['name']} {tokenizer['id'][:12]})"
    )
    if there.dataset_id.startswith(wanted):
        holds = f"the file {MANIFEST}/{there.dataset_id}.json is missing"
    return NoSuchSnapshot(f"{store.uri}: 0 snapshots with id {wanted!r}; {holds}")


def _is_taken(store: Store) -> bool:
    """Whether a folder of this machine holds other things than what a run began, which goes on there."""
    return isinstance(store, LocalStore) and store.root.is_dir() and any(store.root.iterdir()) and not store.list(PLAN)
