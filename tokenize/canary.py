"""Sixteen fixed pictures that every tokenizer actor encodes at start, against silent drift between machines.

The first actor of a dataset leaves its codes in plan/canary.json; later ones state in each commit which share of
theirs differs, and refuse to work above 0.5 %. A tokenizer in bf16 also states which share of its codes differs from
those that it gives in fp32.
"""

import hashlib
import json
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.shards.store import Store
from toto.tokenize.crash import reached
from toto.tokenize.encoder import encode_padded
from toto.tokenize.tokenizer_checks import checked_codes
from toto.tokenizers import Tokenizer

NAME = "plan/canary.json"
REFUSED_ABOVE = 0.005


def pictures(resolution: int) -> np.ndarray:
    """uint8 [16, R, R, 3]: gradients, waves and noise at 16 scales, from whole numbers only."""
    y, x = np.mgrid[0:resolution, 0:resolution].astype(np.int64)
    made = []
    for i in range(16):
        noise = ((x * 7919 + y * 104729 + i * 1299709) * 2654435761 >> 7) & 255
        ramp = (x * (i + 1) + y * (16 - i)) * 255 // (17 * resolution)
        checks = ((x >> (i % 5)) ^ (y >> (i % 4))) & 255
        made.append(np.stack([ramp, (ramp + checks) & 255, (noise * i + ramp * (16 - i)) >> 4], axis=-1))
    return np.stack(made).astype(np.uint8)


def check(store: Store, tokenizer: Tokenizer, resolution: int) -> dict[str, Any]:
    """Encodes the canary; {"ids": hash, "differs": share against the dataset's first actor}, or UserError.

    Of a tokenizer with precisions also {"precision": "bf16", "flips": share against its own fp32}; fp32 has no flips.
    """
    if not tokenizer.vocab_size:
        return {}
    codes = encode_padded(tokenizer, pictures(resolution))
    mine = {"codes": codes.reshape(-1).tolist()}
    created = store.create(NAME, json.dumps(mine).encode())
    reached("after_canary")
    first = codes.reshape(-1) if created else _first(store)
    differs = float(np.mean(first != codes.reshape(-1))) if first.size == codes.size else 1.0
    if differs > REFUSED_ABOVE:
        raise UserError(
            f"this machine's tokenizer gives other codes than the dataset's first one: {differs:.2%} of the canary "
            f"differ (at most {REFUSED_ABOVE:.1%}); check device, precision, library versions and, in bf16, "
            "the C++ compiler"
        )
    return precision_facts(tokenizer, pictures(resolution), codes) | {
        "ids": hashlib.sha256(np.ascontiguousarray(codes, "<i4").tobytes()).hexdigest()[:16],
        "differs": differs,
    }


def precision_facts(tokenizer: Tokenizer, frames: np.ndarray, codes: np.ndarray | None = None) -> dict[str, Any]:
    """How exact a tokenizer is on uint8 frames [n, H, W, 3]: its precision, and its flips where that is not fp32."""
    precision = getattr(tokenizer, "precision", None)
    if precision is None:
        return {}
    if precision == "fp32":
        return {"precision": precision}
    found = encode_padded(tokenizer, frames) if codes is None else codes
    exact = checked_codes(tokenizer, frames.transpose(0, 3, 1, 2), "encode_exact")
    return {"precision": precision, "flips": float(np.mean(found != exact))}


def _first(store: Store) -> np.ndarray:
    """int64 codes of the dataset's first actor; UserError when the file is damaged."""
    try:
        return np.asarray(json.loads(store.read(NAME))["codes"], np.int64)
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{store.uri}/{NAME} is damaged; remove it, and the next worker writes it anew") from None
