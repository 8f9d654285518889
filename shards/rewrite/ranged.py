"""Raw frames in one remote file: a part is fetched when it is asked for; nothing is kept.

[n, h, w], of any length ─[a:b]─▶ up to 64 MiB: an array; more: the same again, to be cut further ─np.asarray─▶ array
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.shards.store import RemoteStore

AT_ONCE = 64 << 20  # bytes of a part that is fetched when it is cut
REQUEST = 8 << 20


@dataclass(frozen=True)
class Ranged:
    """Frames of a file, or some of them; cut along the first axis alone."""

    store: RemoteStore
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    first: int = 0  # number in the file of the first of them

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return int(self.dtype.itemsize)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return math.prod(self.shape[1:]) * self.itemsize

    def __getitem__(self, which: slice) -> "Ranged | np.ndarray":
        start, stop, step = which.indices(len(self))
        assert step == 1
        part = Ranged(self.store, self.name, self.dtype, (max(0, stop - start), *self.shape[1:]), self.first + start)
        return np.asarray(part) if len(part) * self.frame_bytes <= AT_ONCE else part

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        begin, length = self.first * self.frame_bytes, len(self) * self.frame_bytes
        ranges = [(begin + at, min(REQUEST, length - at)) for at in range(0, length, REQUEST)]
        numbers = np.frombuffer(b"".join(self.store.read_ranges(self.name, ranges)), self.dtype).reshape(self.shape)
        return numbers if dtype is None else numbers.astype(dtype)
