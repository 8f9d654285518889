"""What the peers read: the dataset's 16-frame windows of ids, in stored order, baked once for each peer.

A peer is a module with NAME, `write(folder, windows, length)`, `in_order(folder)`, `shuffled(folder, workers, epochs)`
and `length`-independent sizes of its files; all give uint16 arrays. Each is used as its own documentation does it
where speed is wanted; the docstring of the module says how.
"""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import numpy as np
from sides import skipped

from toto import Dataset
from toto.shards.export.pieces import Cut, stored

FRAMES, BATCH = 16, 256  # frames of a window, windows of a batch: a step of the paper
PEERS = ("peer_litdata", "peer_webdataset", "peer_hf", "peer_mds")
FILE_BYTES = 4 << 20  # of one file of a peer: each of 4 workers needs several


def windows(root: Path) -> Iterator[np.ndarray]:
    """Ids [4,098] of every window, in stored order."""
    return (window.tokens for window in stored(Dataset(root), Cut(FRAMES)))


def images(root: Path) -> Iterator[np.ndarray]:
    """Ids [258] of every image."""
    return (window.tokens for window in stored(Dataset(root), None))


def peers(what: str, names: tuple[str, ...] = PEERS) -> list[ModuleType]:
    """The peers that import here; says which do not."""
    found = []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except Exception as error:  # a package that needs another torch or numpy may raise anything
            skipped(f"{what}, {name.removeprefix('peer_')}", f"{type(error).__name__}: {str(error)[:100]}")
    return found


def bake(peer: ModuleType, root: Path, pieces: Iterator[np.ndarray]) -> Path:
    """The folder with the peer's files, beside the dataset; made when it is not there yet."""
    folder = root.with_name(f"{root.name}-{peer.__name__}")
    if not folder.exists():
        click.echo(f"writing {folder}")
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        peer.write(partial, pieces)
        partial.rename(folder)
    return folder


def bytes_in(folder: Path) -> int:
    """Of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
