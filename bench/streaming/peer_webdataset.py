"""WebDataset: tars of .npy alone, decoded by one np.frombuffer, shuffled by tars and a buffer of 1,000, batched in the
pipeline (so that workers hand over whole batches), WebLoader for more processes."""

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from baked import BATCH, FILE_BYTES

NAME = "WebDataset"
HEADER, BUFFER = 128, 1_000  # bytes of a .npy file's header; windows


def write(folder: Path, pieces: Iterator[np.ndarray], suffix: str = "tar") -> None:
    """By its own writer."""
    with wds.ShardWriter(
        str(folder / f"train-%06d.{suffix}"), maxsize=FILE_BYTES, maxcount=1 << 30, verbose=0
    ) as writer:
        for i, ids in enumerate(pieces):
            writer.write({"__key__": f"{i:09d}", "ids.npy": ids})


def write_small(folder: Path, pieces: Iterator[np.ndarray]) -> None:
    """With gzip, which it knows by the file's name."""
    write(folder, pieces, "tar.gz")


def in_order(folder: Path) -> Iterator[np.ndarray]:
    """Window after window."""
    return iter(wds.WebDataset(_tars(folder), shardshuffle=False).map(_ids))


def shuffled(folder: Path, workers: int, epochs: range, batch: int = BATCH) -> Iterator[Any]:
    """Batches [256, 4098] of as many epochs, which its pipeline repeats."""
    stack = _stack if workers else np.stack
    batches = _shuffled(folder, epochs.start).batched(batch, collation_fn=stack, partial=False).repeat(len(epochs))
    return iter(wds.WebLoader(batches, batch_size=None, num_workers=workers)) if workers else iter(batches)


def resumed(folder: Path, done: int, batch: int) -> Iterator[Any]:
    """It has no state: what was read is read again and dropped."""
    batches = _shuffled(folder, 0).batched(batch, collation_fn=np.stack, partial=False)
    return islice(iter(batches), done // batch, None)


def _shuffled(folder: Path, seed: int) -> wds.WebDataset:
    tars = wds.WebDataset(_tars(folder), shardshuffle=100, seed=seed)
    return tars.shuffle(BUFFER, rng=random.Random(seed)).map(_ids)


def _tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def _ids(sample: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(sample["ids.npy"], np.uint16, offset=HEADER)


def _stack(arrays: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))
