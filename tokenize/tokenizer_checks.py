"""What a tokenizer gives is checked before it gets into rows: anybody's code may be behind it.

    load ─▶ spec: name, vocab_size, patch ─▶ encode ─▶ codes: whole numbers of the vocabulary, one a patch ─▶ int32

Codes are looked at as they come, before any cast: 65,541 would be a valid id in 16 bits. What somebody else's package
raises ends the run with its name; `--debug` adds the traceback. Errors of the tokenizers here pass as they are.
"""

import json
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.tokenize.clip import one_line
from toto.tokenizers import BUILT_IN, Tokenizer, failed

NUMBERS = {"vocab_size": (0, (1 << 31) - 8), "patch": (1, 4096)}  # ids are 32 bits at most; 0 codes: pixels alone


def checked_codes(tokenizer: Tokenizer, pictures: np.ndarray, function: str = "encode") -> np.ndarray:
    """What `encode` (or `encode_exact`) makes of uint8 [n, 3, H, W], as int32 [n, h, w].

    UserError, naming the tokenizer, where these are no codes of it, or a plug-in raises anything else.
    """
    try:
        codes = getattr(tokenizer, function)(pictures)
    except UserError:
        raise
    except Exception as error:
        if tokenizer.spec["name"] in BUILT_IN:
            raise
        raise failed(tokenizer.spec["name"], function, error) from error
    n, _, height, width = pictures.shape
    shape = (n, height // tokenizer.patch, width // tokenizer.patch) if tokenizer.vocab_size else (n, 0, 0)
    wrong = _wrong(codes, shape, tokenizer.vocab_size)
    if wrong:
        raise UserError(
            f"tokenizer {tokenizer.spec['name']}: {function} of {n} × {height} × {width} pixels returned {wrong}\n"
            f"wanted: a NumPy array of whole numbers from 0 to {tokenizer.vocab_size - 1}, of shape {shape}"
        )
    return codes.astype(np.int32, copy=False)  # 8 and 16 bits would overflow when ids are made of them


def _wrong(codes: Any, shape: tuple[int, ...], vocab_size: int) -> str | None:
    """What is wrong with codes, if anything."""
    if not isinstance(codes, np.ndarray):
        return "None" if codes is None else f"a {type(codes).__module__}.{type(codes).__name__}"
    if codes.shape != shape:
        return f"an array of shape {codes.shape}"
    if codes.dtype.kind not in "iu":
        return f"an array of {codes.dtype}"
    if codes.size and (codes.min() < 0 or codes.max() >= vocab_size):
        return f"codes from {codes.min()} to {codes.max()}"
    return None


def checked_spec(name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer's spec; UserError where a plug-in's cannot be stored, or makes no tokenizer of the same kind."""
    spec = getattr(tokenizer, "spec", None)
    if name in BUILT_IN:
        return tokenizer.spec
    if not isinstance(spec, dict) or spec.get("name") != name:
        raise UserError(f"tokenizer {name}: its spec must be a dict with the name {name!r}, found {spec!r:.100}")
    try:
        json.dumps(spec)
    except (TypeError, ValueError) as error:
        raise UserError(f"tokenizer {name}: its spec is not plain JSON: {one_line(error)}") from None
    refuse_other(name, tokenizer, spec)
    return spec


def refuse_other(name: str, tokenizer: Tokenizer, spec: dict[str, Any]) -> None:
    """UserError where a plug-in's vocabulary or patch is none, or not what a spec says that it was made of."""
    if name in BUILT_IN:
        return
    for key, (least, most) in NUMBERS.items():
        own, said = getattr(tokenizer, key, None), spec.get(key)
        if own != said or not isinstance(own, int) or not least <= own <= most:
            raise UserError(
                f"tokenizer {name}: its {key} is {own!r}, and its spec says {said!r}; "
                f"both must be the same whole number from {least} to {most:,}"
            )
