"""Hugging Face datasets: Arrow on disk, mapped; lists of a fixed length, so that a batch becomes one NumPy array.

Shuffled by indices of our own and `__getitems__`, which DataLoader calls with a batch of them: faster here than
`shuffle()` (a second mapping) and than `to_iterable_dataset().shuffle()`.
"""

from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from baked import BATCH
from datasets.arrow_writer import ArrowWriter
from torch.utils.data import BatchSampler, DataLoader

NAME = "HF datasets"
FILE = "train.arrow"
datasets.disable_progress_bars()


def write(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """By its own writer, uncompressed, as it maps files."""
    first = next(pieces)
    features = datasets.Features({"ids": datasets.List(datasets.Value("uint16"), length=len(first))})
    with ArrowWriter(path=str(folder / FILE), features=features) as writer:
        for ids in chain([first], pieces):
            writer.write({"ids": ids})
        writer.finalize()


def write_small(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """Parquet as it writes it itself: what lies on a hub."""
    write(folder, pieces)
    open_dataset(folder).to_parquet(folder / "train.parquet")
    (folder / FILE).unlink()


def in_order(folder: Path) -> Iterator[np.ndarray]:
    """Batches [256, 4098]."""
    return (batch["ids"] for batch in open_dataset(folder).iter(BATCH))


def shuffled(folder: Path, workers: int, epochs: range, batch: int = BATCH) -> Iterator[Any]:
    """Batches [256, 4098] of these epochs, whose orders stand one behind the other: workers go on."""
    dataset = _kept_open(folder)
    whole = len(dataset) // batch * batch
    order = np.concatenate([np.random.default_rng(epoch).permutation(len(dataset))[:whole] for epoch in epochs])
    if not workers:
        return (dataset[order[i : i + batch]]["ids"] for i in range(0, len(order), batch))
    sampler = BatchSampler(order.tolist(), batch, drop_last=True)
    return iter(DataLoader(_Batches(dataset), batch_size=None, sampler=sampler, num_workers=workers))


def resumed(folder: Path, done: int, batch: int) -> Iterator[Any]:
    """Batches after `done` samples of an epoch: the order is made anew, whole."""
    dataset = open_dataset(folder)
    order = np.random.default_rng(0).permutation(len(dataset))
    return (dataset[order[i : i + batch]]["ids"] for i in range(done, len(order), batch))


@cache
def _kept_open(folder: Path) -> datasets.Dataset:
    """Opened once for all epochs."""
    return open_dataset(folder)


def open_dataset(folder: Path) -> datasets.Dataset:
    """As NumPy arrays of uint16."""
    return datasets.Dataset.from_file(str(folder / FILE)).with_format("numpy", dtype=np.uint16)


class _Batches:
    def __init__(self, dataset: datasets.Dataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, numbers: list[int]) -> torch.Tensor:
        return torch.from_numpy(self._dataset[numbers]["ids"])
