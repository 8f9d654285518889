"""Records with a 64-bit hash, gathered from anywhere and given back hash by hash, in bounded memory.

    add ─by the highest bits of the hash─▶ one file a part (or memory, where all fit) ─▶ parts, each sorted by hash

All records of one hash are in one part, so what has the same hash meets there.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from toto.errors import naming

MOST_PARTS = 4096


class HashedRecords:
    """Records of a structured dtype with a field `hash` (uint64). `expected` of them are foreseen: with more, parts
    become larger. At most about 3 · `most` records are in memory."""

    def __init__(self, dtype: np.dtype, expected: int, most: int, folder: Path) -> None:
        self._dtype, self._most, self._folder = dtype, most, folder
        self._bits = min((-(-expected // most) - 1).bit_length() if expected else 0, MOST_PARTS.bit_length() - 1)
        self._held: list[np.ndarray] = []
        self._held_records = 0

    def add(self, records: np.ndarray) -> None:
        """Takes records in."""
        self._held.append(records)
        self._held_records += len(records)
        if self._bits and self._held_records > self._most:
            self._write()

    def parts(self) -> Iterator[np.ndarray]:
        """Every record, sorted by hash; equal hashes keep the order in which they were added."""
        if not self._bits:
            yield self._sorted(self._held)
            return
        self._write()
        for part in range(1 << self._bits):
            path = self._path(part)
            yield self._sorted([np.fromfile(path, self._dtype)] if path.exists() else [])
            path.unlink(missing_ok=True)

    def _sorted(self, records: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([np.empty(0, self._dtype), *records])
        return joined[np.argsort(joined["hash"], kind="stable")]

    def _write(self) -> None:
        held = np.concatenate([np.empty(0, self._dtype), *self._held])
        self._held, self._held_records = [], 0
        part = held["hash"] >> np.uint64(64 - self._bits)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange((1 << self._bits) + 1))
        for i in np.flatnonzero(np.diff(edges)).tolist():
            with naming(self._path(i)), open(self._path(i), "ab") as file:
                held[order[edges[i] : edges[i + 1]]].tofile(file)

    def _path(self, part: int) -> Path:
        return self._folder / f"{id(self):x}-{part:04d}.records"
