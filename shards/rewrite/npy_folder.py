"""A folder of .npy files: one video or one image each, as LlamaGen's extract_codes_c2i.py writes them.

video   [n, h, w], or [n, h·w] with a grid
image   [h, w], [1, h, w], [h·w], or with V views [V, h·w], [1, V, h·w] …
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toto.shards.rewrite.foreign import METADATA, MOST_CELLS, Facts
from toto.shards.rewrite.foreign_rows import check_codes, image_rows, video_rows
from toto.shards.rewrite.npy import BadFile, read_npy
from toto.shards.schema import RowRecord

SUFFIX = ".npy"


class NpyFolder:
    """The files of a folder, and what its metadata says of them."""

    layout = "npy"

    def __init__(self, folder: Path, facts: Facts, split: str) -> None:
        self._folder, self._root, self._facts, self._split = folder, folder / facts.codes, facts, split
        self._labels = folder / facts.labels if isinstance(facts.labels, str) else None
        self.ignored = self.labelled = 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line of the plan for each file, by key; what is no .npy, or has a name that is not UTF-8, is counted."""
        for path in _files(self._root):
            key = path.relative_to(self._root).as_posix()
            if key == METADATA:
                continue
            if path.suffix != SUFFIX or not _is_text(key) or (self._labels and self._labels in path.parents):
                self.ignored += 1
                continue
            size, changed = _size_and_time(path)
            split = self._facts.splits.get(key.partition("/")[0], self._split)
            label = self._label(key)
            self.labelled += label is not None
            yield {
                **{"key": key, "split": split, "kind": self._facts.kind, "label": label, "size": size},
                **{"first": 0, "frames": 0, "bytes": size, "changed": changed},
            }

    def rows(self, line: dict[str, Any]) -> Iterator[RowRecord]:
        """The rows of one file, all of whose codes are checked first; BadFile."""
        codes = read_npy(self._root / line["key"], self._folder)
        if _size_and_time(self._root / line["key"])[0] != line["size"]:
            raise BadFile("changed", f"it had {line['size']:,} bytes when it was planned")
        shaped = self._shaped(codes)
        check_codes(codes, self._facts.vocab_size)
        rows = image_rows if self._facts.kind == "image" else video_rows
        yield from rows(line["key"], line["label"], shaped, self._facts)

    def _shaped(self, codes: np.ndarray) -> np.ndarray:
        """[n, h, w]: frames of a video, or views of an image."""
        facts = self._facts
        plain = 2 if facts.kind == "image" and facts.views == 1 else 3
        if not codes.ndim or (
            facts.grid is None and codes.ndim != plain
        ):  # [n, h·w] must not pass for one picture of n × h·w codes
            raise BadFile("wrong_shape", f"{codes.shape}; metadata.json tells no grid that it fits")
        grid = facts.grid or codes.shape[-2:]
        cells = grid[0] * grid[1]
        is_grid = codes.shape[-2:] == tuple(grid)
        is_flat = not is_grid and codes.shape[-1] == cells
        leading = codes.shape[: -2 if is_grid else -1]
        n = codes.size // cells
        if not (is_grid or is_flat) or any(size != 1 for size in leading[:-1]) or cells > MOST_CELLS:
            raise BadFile("wrong_shape", f"{codes.shape} does not hold pictures of {grid[0]} × {grid[1]} codes")
        if facts.kind == "image" and n != facts.views:
            raise BadFile("wrong_shape", f"{codes.shape} holds {n} pictures; each image has {facts.views}")
        return codes.reshape(n, *grid)

    def _label(self, key: str) -> int | None:
        """The class of a file: of the metadata, or of the file of this name in the folder of labels."""
        if self._labels is None:
            assert not isinstance(self._facts.labels, str)
            return self._facts.labels.get(key)
        try:
            label = read_npy(self._labels / key, self._folder)
            return int(label.reshape(-1)[0]) if label.size == 1 and abs(int(label.reshape(-1)[0])) < 1 << 31 else None
        except BadFile:
            return None


def _files(folder: Path) -> Iterator[Path]:
    """Every file below a folder, sorted, but hidden ones; folders that are links are not entered."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _size_and_time(path: Path) -> tuple[int, int]:
    """Bytes, and ns of the last change; zeros of a link that leads nowhere."""
    try:
        told = path.stat()
    except OSError:
        return 0, 0
    return told.st_size, told.st_mtime_ns


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
