"""LitData: TokensLoader over chunks of bare uint16, mapped in place (its default for local folders)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from baked import BATCH, FILE_BYTES
from litdata import StreamingDataLoader, StreamingDataset, TokensLoader
from litdata.streaming.writer import BinaryWriter

NAME = "litData"


def write(folder: Path, pieces: Iterator[np.ndarray], compression: str | None = None) -> None:
    """By its own writer."""
    how = {"compression": compression, "compression_level": "chunk"} if compression else {}
    writer = BinaryWriter(str(folder), chunk_bytes=FILE_BYTES, item_loader=TokensLoader(), **how)
    for i, ids in enumerate(pieces):
        writer[i] = ids
        length = len(ids)
    writer.done()
    writer.merge()
    (folder / "length").write_text(str(length))


def write_small(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """With its zstd, a chunk as a whole."""
    write(folder, pieces, "zstd")


def in_order(folder: Path) -> Iterator[np.ndarray]:
    """Window after window."""
    return iter(open_dataset(folder, shuffle=False))


def shuffled(folder: Path, workers: int, epochs: range, batch: int = BATCH) -> Iterator[Any]:
    """Batches [256, 4098] of as many epochs by its own loader, each an iteration; workers stay."""
    dataset = open_dataset(folder, shuffle=True, seed=epochs.start)
    loader = StreamingDataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=workers > 0)
    for _ in epochs:
        yield from loader


def open_dataset(folder: Path, shuffle: bool, seed: int = 0) -> StreamingDataset:
    """Of the windows that were written."""
    loader = TokensLoader(block_size=int((folder / "length").read_text()))
    return StreamingDataset(str(folder), item_loader=loader, shuffle=shuffle, seed=seed, drop_last=False)


def resumed(folder: Path, done: int, batch: int) -> Iterator[Any]:
    """Batches after `done` samples of an epoch, in a process that has read none of them."""
    dataset = open_dataset(folder, shuffle=True)
    dataset.load_state_dict(dataset.state_dict(done, 0, batch))
    return iter(StreamingDataLoader(dataset, batch_size=batch, num_workers=0))
