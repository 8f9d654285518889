"""What makes two tokenizers the same: the id that checkpoint and shards must agree on."""

from typing import Any

from toto.shards.hashing import json_sha256
from toto.shards.ids import ID_LAYOUT

PREPROCESSING_VERSION = 1  # changes when the same file would give other pixels: crop, resize, colour conversion
RECORDED = (  # in the spec for people and for the next load, but no part of the id
    "weights",
    "decoder",
    "decoder_sha256",
    "model_config",
    "trained_with",
    "precision",
    "device",
    "compile",
)


def with_id(spec: dict[str, Any]) -> dict[str, Any]:
    """Adds `id`: the first 16 hex of sha256 over name, parameters, hashes, id layout and preprocessing version."""
    facts = {key: value for key, value in spec.items() if key not in RECORDED}
    facts |= {"id_layout": ID_LAYOUT, "preprocessing": PREPROCESSING_VERSION}
    return {**spec, "id": json_sha256(facts)[:16]}


def recorded(spec: dict[str, Any]) -> dict[str, Any]:
    """The entries of a spec on which the id does not depend."""
    return {key: spec[key] for key in RECORDED if spec.get(key) is not None}


def place(spec: dict[str, Any], key: str) -> str | None:
    """Where a file of weights is; None where a dataset's spec holds no more than its name, which is no place."""
    uri = spec.get(key)
    is_name = uri is not None and "id" in spec and "/" not in uri
    return None if is_name else uri
