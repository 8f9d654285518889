"""What the tokenizers with networks share: nothing is loaded before the first picture, then the net stays.

A spec alone (for plan, status, a viewer's checks) needs the header of the weights' file and no torch.
"""

from abc import abstractmethod
from typing import Any

import numpy as np

from toto.affinity import cores
from toto.errors import UsageError
from toto.tokenize.tokenizers.identity import with_id

DECODED_AT_ONCE = 16  # pictures


class NetTokenizer:
    """A tokenizer that runs a network; subclasses say which, and how its outputs become codes."""

    def __init__(self, spec: dict[str, Any], device: str) -> None:
        self.vocab_size, self.patch = int(spec["vocab_size"]), int(spec["patch"])
        self.spec = with_id(spec)
        self._device = device
        self._place: Any = None
        self._running: Any = None
        self._decoder: Any = None

    @property
    def batch(self) -> int | None:
        """Pictures of one call on a GPU; None on a CPU, where each goes through alone."""
        return None if self._device == "cpu" else self._placement().batch

    @property
    def precision(self) -> str:
        """fp32 (exact) or bf16, as this process runs it."""
        return self._placement().precision

    @property
    def device(self) -> str:
        """cpu or cuda."""
        return str(self._placement().device).partition(":")[0]

    def flops(self, side: int) -> float:
        """Floating-point operations (two for a multiply-add) of encoding one picture of so many pixels a side."""
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        net = self._load_encoder().to("meta")
        picture = torch.empty((1, 3, side, side), dtype=torch.uint8, device="meta")
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            net.head(net.trunk(net.prepare(picture)))
        return float(counter.get_total_flops())

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 RGB [n, 3, H, W] -> int32 codes [n, H / patch, W / patch]."""
        if not len(pictures):
            return np.empty((0, *(side // self.patch for side in pictures.shape[2:])), np.int32)
        return self._encoder().encode(pictures, self._codes)

    def encode_exact(self, pictures: np.ndarray) -> np.ndarray:
        """The same codes in fp32, whatever precision this process runs in."""
        return self._encoder().encode_exact(pictures, self._codes)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int codes [n, h, w] -> uint8 RGB [n, 3, patch h, patch w]; ValueError for what is no code."""
        refuse_no_codes(codes, self.vocab_size)
        if not len(codes):
            return np.empty((0, 3, *(self.patch * side for side in codes.shape[1:])), np.uint8)
        import torch

        from toto.tokenize.tokenizers.running import exact_arithmetic

        device = self._placement().device
        if self._decoder is None:
            self._decoder = self._load_decoder().to(device)
        parts = []
        with exact_arithmetic(threads=cores()):
            for start in range(0, len(codes), DECODED_AT_ONCE):
                part = np.ascontiguousarray(codes[start : start + DECODED_AT_ONCE], np.int64)
                pixels = self._pixels(torch.from_numpy(part).to(device))
                parts.append(pixels.mul(255).round().clamp(0, 255).byte().cpu().numpy())
        return np.concatenate(parts)

    @abstractmethod
    def _load_encoder(self) -> Any:
        """The network of running.EncodingNet."""

    @abstractmethod
    def _load_decoder(self) -> Any:
        """The network that pictures come back from."""

    @abstractmethod
    def _codes(self, head: Any) -> np.ndarray:
        """What the encoder's head gives, torch float32 [n, c, h, w] -> int codes [n, h, w]."""

    @abstractmethod
    def _pixels(self, codes: Any) -> Any:
        """torch int64 [n, h, w] -> torch float pixels of [0, 1], [n, 3, H, W]."""

    def _encoder(self) -> Any:
        if self._running is None:
            from toto.tokenize.tokenizers.running import Running

            self._running = Running(self._load_encoder(), self._placement())
        return self._running

    def _placement(self) -> Any:
        if self._place is None:
            from toto.tokenize.tokenizers.running import Placement

            self._place = Placement.of(self.spec, self._device)
        return self._place


def refuse_no_codes(codes: np.ndarray, vocab_size: int) -> None:
    """ValueError where a number is none of 0 … vocab_size - 1, such as a special id."""
    if codes.size and not (codes.min() >= 0 and codes.max() < vocab_size):
        raise ValueError(f"codes are 0 … {vocab_size - 1}, found {codes.min()} … {codes.max()}")


def refuse_other_size(spec: dict[str, Any], vocab_size: int) -> None:
    """UsageError when a vocab_size was asked for that the weights do not have."""
    asked = spec.get("vocab_size")
    if asked not in (None, vocab_size):
        raise UsageError(f"tokenizer {spec['name']}: vocab_size {asked}, but its weights have {vocab_size:,} codes")
