"""Hugging Face: Parquet files `data/<split>-00000.parquet` that `datasets.load_dataset(folder)` reads, offline too.

A row is a piece: its ids (or codes, as an Array3D) and the columns of its provenance. The dictionary encoding of
Parquet stores ids in as many bits as the vocabulary needs; zstd goes over that.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toto.shards.export.layout import Layout, OneShape
from toto.shards.export.outgoing import Outgoing
from toto.shards.export.provenance import FIELDS

SHARD_BYTES = 256 << 20
GROUP_BYTES = 8 << 20  # of ids in a row group: what a reader holds at once


class ParquetFiles:
    """Writes the pieces of one split; a file is closed when `shard_bytes` bytes of ids went into it."""

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None:
        self._out, self._split, self._layout = out, hub_split(split), layout
        self._folder = out.folder / "data"
        self._folder.mkdir(exist_ok=True)
        self._shard_bytes = shard_bytes or SHARD_BYTES
        self._one_grid = OneShape(but_frames=layout.frames is None)
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._arrays: list[np.ndarray] = []
        self._facts: list[dict[str, Any]] = []
        self._files = self._group_bytes = self._file_bytes = 0

    @classmethod
    def names(cls, split: str) -> str:
        """A regular expression of the files that a split has."""
        return rf"data/{hub_split(split)}-\d{{5,}}\.parquet"

    def write(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Adds one piece."""
        if self._layout.codes:
            self._one_grid.check(array, facts)
        self._arrays.append(array)
        self._facts.append(facts)
        self._group_bytes += array.nbytes
        if self._group_bytes >= min(GROUP_BYTES, self._shard_bytes):
            self._flush()
        if self._file_bytes >= self._shard_bytes:
            self._close()

    def close(self) -> None:
        """Ends the last file; a split without pieces has one without rows."""
        if self._arrays or not self._files:
            self._flush()
        self._close()

    def _flush(self) -> None:
        if self._schema is None:
            self._schema = _schema(self._layout, self._arrays[0].shape if self._arrays else (0, 1, 1))
        if self._writer is None:
            self._path = self._folder / f"{self._split}-{self._files:05d}.parquet"
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
            self._files += 1
        columns = [_nested(self._arrays, self._layout.dtype)]
        columns += [pa.array([facts[name] for facts in self._facts], kind) for name, kind, _ in FIELDS]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._file_bytes += self._group_bytes
        self._group_bytes = 0
        self._arrays.clear()
        self._facts.clear()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer, self._file_bytes = None, 0
            self._out.finished(self._path)


def hub_split(split: str) -> str:
    """The name of a split as `datasets` allows it: letters, digits, _ and dots between them."""
    return split.replace("-", "_")


def _nested(arrays: list[np.ndarray], dtype: np.dtype) -> pa.Array:
    """Arrays of one number of dimensions as (nested) lists, without Python numbers."""
    values = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.empty(0, dtype)
    column: pa.Array = pa.array(values)
    for axis in range(2, 0, -1):
        if arrays and arrays[0].ndim > axis:
            repeats = [int(np.prod(array.shape[:axis])) for array in arrays]
            column = pa.ListArray.from_arrays(_offsets(np.repeat([a.shape[axis] for a in arrays], repeats)), column)
    return pa.ListArray.from_arrays(_offsets([len(array) for array in arrays]), column)


def _offsets(lengths: list[int] | np.ndarray) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))


def _schema(layout: Layout, shape: tuple[int, ...]) -> pa.Schema:
    """The columns, with what `datasets` calls features in the metadata, where it looks for them."""
    number = pa.from_numpy_dtype(layout.dtype)
    ids: pa.DataType = pa.list_(pa.list_(pa.list_(number))) if layout.codes else pa.list_(number)
    fields = [pa.field(layout.name, ids, nullable=False)]
    fields += [pa.field(name, kind, nullable=nullable) for name, kind, nullable in FIELDS]
    features: dict[str, Any] = {field.name: _feature(field.type) for field in fields}
    if layout.codes:
        full = [layout.frames, *shape[1:]]
        features["codes"] = {"shape": full, "dtype": str(layout.dtype), "_type": "Array3D"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": str(kind), "_type": "Value"}
