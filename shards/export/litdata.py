"""LitData: a folder for each split, of `chunk-0-<n>.bin` and an `index.json`, as litdata.StreamingDataset reads them.

    chunk = pieces u32, where each begins and the last ends u32 [pieces + 1], pieces
    piece = bytes of each leaf u32 [leaves], leaves: ids, or codes with their shape; then strings, int64 and arrays

Written here, not by litdata's own writer: that one needs torch, and takes a string that is the name of a file for the
file. There is no null: a label of -1 is none, and no times are an empty array.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from toto.shards.export.layout import Layout
from toto.shards.export.outgoing import Outgoing
from toto.shards.export.provenance import FIELDS

CHUNK_BYTES = 64 << 20  # what litdata itself recommends
NUMPY_TYPES = {"int64": 3, "uint16": 5, "uint32": 6}  # litdata's numbers for them


class Chunks:
    """Writes the pieces of one split; a chunk is closed when it holds `shard_bytes` bytes, all of it in memory."""

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None:
        self._out, self._folder, self._layout = out, out.folder / split, layout
        self._folder.mkdir()
        self._chunk_bytes = shard_bytes or CHUNK_BYTES
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._chunks: list[dict[str, Any]] = []
        self._content = xxhash.xxh3_64()  # litdata keeps remote chunks by this name until it changes

    @classmethod
    def names(cls, split: str) -> str:
        """A regular expression of the files that a split has."""
        return rf"{split}/(chunk-0-\d+\.bin|index\.json)"

    def write(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Adds one piece."""
        leaves = [_with_shape(array) if self._layout.codes else array.tobytes()]
        leaves += [_leaf(facts[name], kind) for name, kind, _ in FIELDS]
        piece = np.array([len(leaf) for leaf in leaves], "<u4").tobytes() + b"".join(leaves)
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes >= self._chunk_bytes:
            self._flush()

    def close(self) -> None:
        """Writes the last chunk and the index, which is called finished after the chunks of all splits."""
        self._flush()
        index = {"chunks": self._chunks, "config": self._config(), "updated_at": self._content.hexdigest()}
        (self._folder / "index.json").write_text(json.dumps(index, sort_keys=True))

    def _flush(self) -> None:
        if not self._pieces:
            return
        ends = np.cumsum([0, *map(len, self._pieces)]) + 4 * (len(self._pieces) + 2)
        data = b"".join([np.array([len(self._pieces), *ends], "<u4").tobytes(), *self._pieces])
        name = f"chunk-0-{len(self._chunks)}.bin"
        (self._folder / name).write_bytes(data)
        self._out.finished(self._folder / name)
        self._content.update(data)
        facts = {"chunk_bytes": len(data), "chunk_size": len(self._pieces), "dim": None, "filename": name}
        self._chunks.append(facts)
        self._pieces.clear()
        self._bytes = 0

    def _config(self) -> dict[str, Any]:
        first = "numpy" if self._layout.codes else f"no_header_numpy:{NUMPY_TYPES[str(self._layout.dtype)]}"
        names = [self._layout.name, *(name for name, _, _ in FIELDS)]
        leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
        tree = {"type": "builtins.dict", "context": json.dumps(names), "children_spec": [leaf] * len(names)}
        return {
            "chunk_bytes": self._chunk_bytes,
            "chunk_size": None,
            "compression": None,
            "data_format": [first, *(_format(kind) for _, kind, _ in FIELDS)],
            "data_spec": json.dumps([1, tree]),
            "encryption": None,
            "item_loader": "PyTreeLoader",
        }


def _with_shape(array: np.ndarray) -> bytes:
    header = [NUMPY_TYPES[str(array.dtype)], array.ndim, *array.shape]
    return np.array(header, "<u4").tobytes() + array.tobytes()


def _format(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"no_header_numpy:{NUMPY_TYPES[str(kind.value_type)]}"
    return "str" if pa.types.is_string(kind) else "int"


def _leaf(value: Any, kind: pa.DataType) -> bytes:
    if pa.types.is_string(kind):
        return str(value).encode()
    if pa.types.is_list(kind):
        return np.array(value or [], "<i8").tobytes()
    return np.array(-1 if value is None else value, "<i8").tobytes()
