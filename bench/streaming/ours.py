"""Ours: batches of the shards in order, and the stream of a recipe; more processes by torch's DataLoader."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from baked import BATCH, FRAMES
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from toto import Dataset
from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream

NAME = "ours"


def open_stream(root: Path, batch: int = BATCH) -> Stream:
    """Windows of 16 frames, or 16 images, of the split train."""
    return Stream(make_recipe([("bench", str(root), 1, "train")], FRAMES, None, 0, batch))


def in_order(root: Path) -> Iterator[np.ndarray]:
    """Ids of every record batch, from the cache of inflated ones."""
    dataset = Dataset(root)
    for shard in range(len(dataset.image_counts())):
        for batch in range(len(dataset.batch_ends(shard))):
            yield dataset.shard_batch(shard, batch).tokens


def inflated(root: Path) -> Iterator[np.ndarray]:
    """Ids of every record batch, inflated and checked anew."""
    return (batch.tokens for _, _, batch in Dataset(root).batches())


def shuffled(root: Path, workers: int, epoch: int) -> Iterator[np.ndarray]:
    """Batches [256, 4098] of one epoch."""
    batches = Batches(_kept_open(root), epoch)
    return iter(DataLoader(batches, batch_size=None, num_workers=workers)) if workers else iter(batches)


@cache
def _kept_open(root: Path) -> Stream:
    """Opened once for all epochs, as a training run does."""
    return open_stream(root)


class Batches(IterableDataset):
    """The batches of an epoch; worker w of W gives every W-th."""

    def __init__(self, stream: Stream, epoch: int) -> None:
        self._stream = stream
        per_epoch = sum(stream.sequences_per_epoch().values()) // BATCH
        self._numbers = range(epoch * per_epoch, (epoch + 1) * per_epoch)

    def __iter__(self) -> Iterator[np.ndarray]:
        info = get_worker_info()
        for n in self._numbers[info.id :: info.num_workers] if info else self._numbers:
            ids = self._stream.sequences(range(n * BATCH, (n + 1) * BATCH)).tokens
            yield torch.from_numpy(ids) if info else ids
