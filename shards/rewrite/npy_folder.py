"""A folder of .npy files: one video or one image each, as LlamaGen's extract_codes_c2i.py writes them.

video   [n, h, w], or [n, h·w] with a grid
image   [h, w], [1, h, w], [h·w], or with V views [V, h·w], [1, V, h·w] …
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from toto.plain import counted
from toto.shards.rewrite.foreign import METADATA, MOST_CELLS, Facts
from toto.shards.rewrite.foreign_files import Entry, Files
from toto.shards.rewrite.foreign_rows import check_codes, image_rows, video_rows
from toto.shards.rewrite.npy import BadFile
from toto.shards.schema import RowRecord

SUFFIX = ".npy"


class NpyFolder:
    """The files of a folder, and what its metadata says of them."""

    layout = "npy"

    def __init__(self, files: Files, facts: Facts, split: str) -> None:
        self._files, self._facts, self._split = files, facts, split
        self._labels = facts.labels.strip("/") if isinstance(facts.labels, str) else None
        self.ignored = self.labelled = 0

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line of the plan for each file, by key; what is no .npy, or has a name that is not UTF-8, is counted."""
        for line in self._files.ahead(partial(self._line, entry) for entry in self._entries()):
            self.labelled += line["label"] is not None
            yield line

    def each(self, lines: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Iterator[RowRecord]]]:
        """Each of these lines with the rows of its file, all of whose codes are checked first: BadFile. Small remote
        files are read while those before them are written."""
        early = self._files.ahead(partial(self._early, line) for line in lines)
        for line, codes in zip(lines, early, strict=True):
            yield line, self._rows(line, codes)

    def _entries(self) -> Iterator[Entry]:
        """The .npy files that hold codes; the others are counted."""
        below = f"{self._facts.codes}/".lstrip("/") if self._facts.codes else ""
        for entry in self._files.entries(self._facts.codes):
            if entry.key == METADATA:
                continue
            of_labels = self._labels is not None and f"{below}{entry.key}".startswith(f"{self._labels}/")
            if not entry.key.endswith(SUFFIX) or not _is_text(entry.key) or of_labels:
                self.ignored += 1
                continue
            yield entry

    def _line(self, entry: Entry) -> dict[str, Any]:
        key, size, changed = entry
        split = self._facts.splits.get(key.partition("/")[0], self._split)
        return {
            **{"key": key, "split": split, "kind": self._facts.kind, "label": self._label(key), "size": size},
            **{"first": 0, "frames": 0, "bytes": size, "changed": changed},
        }

    def _early(self, line: dict[str, Any]) -> np.ndarray | BadFile | None:
        """The array of a small file, or why there is none; None for one that is read when its rows are wanted."""
        if not self._files.is_small(line["size"]):
            return None
        try:
            return self._read(line)
        except BadFile as why:
            return why

    def _read(self, line: dict[str, Any]) -> np.ndarray:
        return self._files.array(_below(self._facts.codes, line["key"]), line["size"])

    def _rows(self, line: dict[str, Any], early: np.ndarray | BadFile | None) -> Iterator[RowRecord]:
        if isinstance(early, BadFile):
            raise early
        codes = self._read(line) if early is None else early
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
            raise BadFile("wrong_shape", f"{codes.shape} holds {counted(n, 'picture')}; each image has {facts.views}")
        return codes.reshape(n, *grid)

    def _label(self, key: str) -> int | None:
        """The class of a file: of the metadata, or of the file of this name in the folder of labels."""
        if self._labels is None:
            assert not isinstance(self._facts.labels, str)
            return self._facts.labels.get(key)
        try:
            label = self._files.array(_below(self._labels, key))
            return int(label.reshape(-1)[0]) if label.size == 1 and abs(int(label.reshape(-1)[0])) < 1 << 31 else None
        except BadFile:
            return None


def _below(folder: str, key: str) -> str:
    return f"{folder.strip('/')}/{key}".lstrip("/")


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
