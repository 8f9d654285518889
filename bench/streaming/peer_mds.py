"""MosaicML's MDS: arrays of a fixed shape and type, uncompressed, its shuffle py1e, DataLoader for more processes.

It wants torchvision and an older NumPy than ours: install it apart (docs/benchmarks.md says how).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baked import BATCH, FILE_BYTES
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

NAME = "MDS"


def write(folder: Path, pieces: Iterator[np.ndarray], compression: str | None = None) -> None:
    """By its own writer."""
    first = next(pieces)
    columns = {"ids": f"ndarray:uint16:{len(first)}"}
    with MDSWriter(out=str(folder), columns=columns, size_limit=FILE_BYTES, compression=compression) as writer:
        writer.write({"ids": first})
        for ids in pieces:
            writer.write({"ids": ids})


def write_small(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """With its zstd."""
    write(folder, pieces, "zstd")


def in_order(folder: Path) -> Iterator[np.ndarray]:
    """Window after window."""
    return (sample["ids"] for sample in open_dataset(folder, shuffle=False))


def shuffled(folder: Path, workers: int, epochs: range, batch: int = BATCH) -> Iterator[Any]:
    """Batches [256, 4098] of as many epochs, each an iteration; workers stay."""
    dataset = open_dataset(folder, shuffle=True, seed=epochs.start, batch=batch)
    how = {"num_workers": workers, "persistent_workers": workers > 0}
    loader = DataLoader(dataset, batch_size=batch, collate_fn=_stack, drop_last=True, **how)
    for _ in epochs:
        yield from loader


def resumed(folder: Path, done: int, batch: int) -> Iterator[Any]:
    """Batches after `done` samples of an epoch, in a process that has read none of them."""
    dataset = open_dataset(folder, shuffle=True, batch=batch)
    dataset.load_state_dict(dataset.state_dict(done, from_beginning=True))
    return iter(DataLoader(dataset, batch_size=batch, collate_fn=_stack))


def open_dataset(folder: Path, shuffle: bool, seed: int = 0, batch: int = BATCH) -> StreamingDataset:
    """Local; what an earlier one left in shared memory is removed first."""
    clean_stale_shared_memory()
    return StreamingDataset(local=str(folder), shuffle=shuffle, shuffle_seed=seed, batch_size=batch)


def _stack(samples: list[dict[str, np.ndarray]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([sample["ids"] for sample in samples]))
