"""The formats of other libraries, by the names that `--to` takes, and which files each of them gives a split."""

import re
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np

from toto.shards.export.arrays import FlatFile, NpyFile
from toto.shards.export.hub import ParquetFiles
from toto.shards.export.layout import Layout
from toto.shards.export.litdata import Chunks
from toto.shards.export.outgoing import LAST, Outgoing
from toto.shards.export.tars import Tars


class Target(Protocol):
    """Takes the pieces of one split, in order."""

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None: ...

    @classmethod
    def names(cls, split: str) -> str:
        """A regular expression of the files that a split has."""
        ...

    def write(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Adds one piece."""
        ...

    def close(self) -> None:
        """Ends the last file."""
        ...


TARGETS: dict[str, type[Target]] = {
    "webdataset": Tars,
    "hf": ParquetFiles,
    "litdata": Chunks,
    "npy": NpyFile,
    "bin": FlatFile,
}


def is_plain(split: str) -> bool:
    """Whether a split's name can be the name of a file, and stand in a regular expression."""
    return re.fullmatch(r"\w[\w-]*", split) is not None


def is_name_of(target: str, splits: Iterable[str], name: str) -> bool:
    """Whether an export of these splits may give a file of this name."""
    return name in LAST or any(re.fullmatch(TARGETS[target].names(split), name) for split in splits)
