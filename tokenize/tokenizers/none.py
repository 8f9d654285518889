"""`none`: no codes. With `keep_pixels` the rows hold the uint8 pixels alone, for patch models (paper, Table 3)."""

from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.tokenize.tokenizers.identity import with_id


def make(spec: dict[str, Any], device: str = "cpu") -> "NoCodes":
    """The tokenizer without codes."""
    return NoCodes()


class NoCodes:
    """Gives every picture a grid of 0×0 codes."""

    vocab_size = 0
    patch = 1
    batch = None
    spec = with_id({"name": "none", "vocab_size": 0, "patch": 1})

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 RGB [n, 3, H, W] -> int32 [n, 0, 0]."""
        return np.empty((len(pictures), 0, 0), np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """There is nothing to decode."""
        raise UsageError("tokenizer `none` keeps no codes; its rows hold pixels (row.pixels)")
