"""nanoGPT's way: one raw file of uint16, mapped anew for every batch, windows at random places."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from baked import BATCH
from torch.utils.data import DataLoader, IterableDataset

NAME = "np.memmap"
FILE, LENGTH = "train.bin", 4_098


def write(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """All ids behind one another."""
    with open(folder / FILE, "wb") as file:
        for ids in pieces:
            file.write(ids.tobytes())


def in_order(folder: Path) -> Iterator[np.ndarray]:
    """Views into the mapping."""
    data = np.memmap(folder / FILE, np.uint16, "r")
    return (data[start : start + BATCH * LENGTH] for start in range(0, len(data), BATCH * LENGTH))


def shuffled(folder: Path, workers: int, epochs: range) -> Iterator[np.ndarray]:
    """Batches [256, 4098], as many as these epochs have."""
    batches = _Batches(folder / FILE, max(1, workers), epochs)
    return iter(DataLoader(batches, batch_size=None, num_workers=workers)) if workers else iter(batches)


class _Batches(IterableDataset):
    def __init__(self, path: Path, parts: int, epochs: range) -> None:
        self._path, self._parts, self._epochs = path, parts, epochs

    def __iter__(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self._epochs.start)
        total = self._path.stat().st_size // 2
        for _ in range(len(self._epochs) * (total // LENGTH // BATCH) // self._parts):
            data = np.memmap(self._path, np.uint16, "r")  # anew each time, as nanoGPT does
            starts = rng.integers(0, total - LENGTH + 1, BATCH)
            ids = np.stack([data[start : start + LENGTH] for start in starts])
            yield torch.from_numpy(ids) if self._parts > 1 else ids
