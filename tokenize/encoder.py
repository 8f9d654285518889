"""Frames -> codes, in this process or in a tokenizer actor; both behind `submit`, which gives a handle to wait on.

A picture's codes never depend on its neighbours: a tokenizer whose arithmetic could differ with the shape of the
batch gets batches of one fixed shape, padded with zeros.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from toto.tokenize.tokenizer_checks import checked_codes
from toto.tokenizers import Tokenizer

BATCH = 16  # frames of a block, the most that are submitted at once


class Encoder(Protocol):
    """Takes frames in the order of a row and gives their codes back, maybe later."""

    def submit(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """uint8 [n, H, W, 3], n ≤ BATCH -> a function that returns int32 codes [n, h, w]."""
        ...

    @property
    def canary(self) -> dict[str, Any]:
        """What the tokenizer behind it made of the canary pictures (see canary.py)."""
        ...

    @property
    def ahead(self) -> int:
        """Bytes of frames that may be sent before the first codes are waited for; 0: codes are there at once."""
        ...

    @property
    def in_flight(self) -> int:
        """Bytes of frames that are on their way now."""
        ...


class LocalEncoder:
    """Encodes at once, in this process."""

    ahead = in_flight = 0

    def __init__(self, tokenizer: Tokenizer, canary: dict[str, Any]) -> None:
        self._tokenizer = tokenizer
        self.canary = canary

    def submit(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Codes are ready when this returns."""
        codes = encode_padded(self._tokenizer, frames)
        return lambda: codes


def encode_padded(tokenizer: Tokenizer, frames: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] -> int32 [n, h, w]; in batches of the tokenizer's own size, the last one filled up.

    UserError where these are no codes of the tokenizer: whatever gets into a row passes here.
    """
    size = tokenizer.batch
    if size is None:
        return checked_codes(tokenizer, frames.transpose(0, 3, 1, 2))
    missing = -len(frames) % size
    if missing:
        frames = np.concatenate([frames, np.zeros((missing, *frames.shape[1:]), np.uint8)])
    batches = frames.transpose(0, 3, 1, 2).reshape(-1, size, 3, *frames.shape[1:3])
    return np.concatenate([checked_codes(tokenizer, batch) for batch in batches])[: len(batches) * size - missing]
