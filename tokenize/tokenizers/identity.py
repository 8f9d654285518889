"""What makes two tokenizers the same: the id that checkpoint and shards must agree on."""

from typing import Any

from toto.shards.hashing import json_sha256
from toto.shards.ids import ID_LAYOUT

PREPROCESSING_VERSION = 1  # changes when the same file would give other pixels: crop, resize, colour conversion


def with_id(spec: dict[str, Any]) -> dict[str, Any]:
    """Adds `id`: the first 16 hex of sha256 over name, parameters, hashes, id layout and preprocessing version."""
    facts = {**spec, "id_layout": ID_LAYOUT, "preprocessing": PREPROCESSING_VERSION}
    return {**spec, "id": json_sha256(facts)[:16]}
