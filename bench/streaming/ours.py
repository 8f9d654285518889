"""Ours: batches of the shards in order, and the stream of a recipe; more processes by the stream itself, or by torch's
DataLoader."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from baked import BATCH, FRAMES
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from toto import Dataset
from toto.shards.batch_source import BATCHES
from toto.shards.recipe import Recipe, make_recipe
from toto.shards.stream import Stream

NAME = "ours"


def open_stream(root: Path, batch: int = BATCH) -> Stream:
    """Windows of 16 frames, or 16 images, of the split train."""
    return Stream(make_recipe([("bench", str(root), 1, "train")], FRAMES, None, 0, batch))


def save_recipe(root: Path) -> None:
    """Beside the dataset, as a training run has it in its folder."""
    _recipe(root).write_text(open_stream(root).recipe.to_json())


def resumed_stream(root: Path) -> Stream:
    """What a training run that goes on opens."""
    return Stream(Recipe.from_json(_recipe(root).read_bytes()))


def _recipe(root: Path) -> Path:
    return root.with_name(f"{root.name}-recipe.json")


def in_order(root: Path) -> Iterator[np.ndarray]:
    """Ids of every record batch, from the cache of inflated ones."""
    dataset = Dataset(root)
    for shard in range(len(dataset.image_counts())):
        for batch in range(len(dataset.batch_ends(shard))):
            yield dataset.shard_batch(shard, batch).tokens


def mapped_anew(root: Path) -> Iterator[np.ndarray]:
    """The same by a process that holds none of them."""
    BATCHES._forget()
    return in_order(root)


def inflated(root: Path) -> Iterator[np.ndarray]:
    """Ids of every record batch, inflated and checked anew."""
    return (batch.tokens for _, _, batch in Dataset(root).batches())


def shuffled(root: Path, workers: int, epochs: range) -> Iterator[np.ndarray]:
    """Batches [256, 4098] of these epochs: the stream goes on from one to the next."""
    wanted = Batches(_kept_open(root), epochs).wanted
    return (batch.tokens for batch in _kept_open(root).batches(wanted, workers))


def by_data_loader(root: Path, workers: int, epochs: range) -> Iterator[torch.Tensor]:
    """The same through torch's DataLoader."""
    return iter(DataLoader(Batches(_kept_open(root), epochs), batch_size=None, num_workers=workers))


@cache
def _kept_open(root: Path) -> Stream:
    """Opened once for all epochs, as a training run does."""
    return open_stream(root)


class Batches(IterableDataset):
    """As many batches as these epochs have; worker w of W gives every W-th."""

    def __init__(self, stream: Stream, epochs: range) -> None:
        self._stream = stream
        per_epoch = sum(stream.sequences_per_epoch().values()) // BATCH * BATCH
        firsts = range(epochs.start * per_epoch, epochs.stop * per_epoch, BATCH)
        self.wanted = [range(first, first + BATCH) for first in firsts]

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        for numbers in self.wanted[info.id :: info.num_workers] if info else self.wanted:
            yield torch.from_numpy(self._stream.sequences(numbers).tokens)
