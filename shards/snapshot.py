"""dataset.json: the sealed snapshot that readers see. It carries its own hash and names all other files with theirs."""

import json
from dataclasses import dataclass
from typing import Any

from toto.errors import UserError
from toto.shards.hashing import json_sha256
from toto.shards.schema import FORMAT_VERSION
from toto.shards.store import Store

DATASET = "dataset.json"
MANIFEST = "manifest"
FIELDS: dict[str, type] = {
    **dict.fromkeys(("dataset_id", "name", "toto_version", "sealed_at"), str),
    **dict.fromkeys(("tokenizer", "id_layout", "settings", "annotations", "totals", "splits", "units", "files"), dict),
    **dict.fromkeys(("quarantine", "made_by"), dict),
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
    tokenizer_id: str, settings: dict[str, Any], units: list[tuple[str, str]], annotations: dict[str, str]
) -> str:
    """sha256 over format version, tokenizer, content settings, (unit id, content hash) pairs, annotation hashes."""
    return json_sha256(
        {
            "format_version": FORMAT_VERSION,
            "tokenizer": tokenizer_id,
            "settings": settings,
            "units": sorted(units),
            "annotations": annotations,
        }
    )


def snapshot_bytes(value: dict[str, Any]) -> bytes:
    """dataset.json's bytes, with its own hash in `sha256`."""
    return json.dumps({**value, "sha256": json_sha256(value)}, indent=1, sort_keys=True).encode() + b"\n"


def parse_snapshot(data: bytes, where: str) -> Snapshot:
    """dataset.json's bytes -> Snapshot; UserError when it is damaged or of another format version."""
    try:
        value = json.loads(data)
        claimed = value.pop("sha256")
        version = value["format_version"]
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{where}: not a dataset.json that toto wrote, or damaged") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{where}: format version {version}; this toto reads version {FORMAT_VERSION}")
    if claimed != json_sha256(value) or snapshot_bytes(value) != data:
        raise UserError(f"{where}: its own hash does not match; the file was changed after it was sealed")
    wrong = [key for key, kind in FIELDS.items() if not isinstance(value.get(key), kind)]
    if wrong:
        raise UserError(f"{where}: not a dataset.json that toto wrote ({', '.join(wrong)} missing or of a wrong type)")
    return Snapshot(value)


def read_snapshot(store: Store, wanted: str | None = None) -> Snapshot:
    """The current snapshot, or the one whose id starts with `wanted` (old ones stay beside their manifests)."""
    name = DATASET
    if wanted is not None:
        known = [n for n in store.list(MANIFEST) if n.endswith(".json")]
        found = [n for n in known if n.removeprefix(f"{MANIFEST}/").startswith(wanted)]
        if len(found) != 1:
            raise UserError(
                f"{store.uri}: {len(found)} snapshots with id {wanted!r}; there are {len(known)} in manifest/"
            )
        name = found[0]
    try:
        return parse_snapshot(store.read(name), f"{store.uri}/{name}")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"no dataset at {store.uri} (no dataset.json); `toto-tokenize run DATASET --out {store.uri}` makes one"
        ) from None
    except (OSError, UserError):
        raise
    except Exception as error:  # an object store's own: no credentials, no such bucket
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"cannot read {store.uri} ({type(error).__name__}: {reason})") from None
