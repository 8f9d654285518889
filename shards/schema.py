"""The columns of a shard and of the per-source results, and the version of the format.

A row is one run of consecutive sampled frames under one crop, or one image; see docs/format.md.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

FORMAT_VERSION = 1
HIGHEST_RATE = 10_000  # frames per second of a source
METADATA_KEY = b"toto"
_RELEASE = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}")


def other_version(found: object, written_by: object = None) -> str:
    """What to say of another format version, and which release reads it: the one that wrote it, where that is told."""
    text = f"format version {str(found)[:20]}; this toto reads version {FORMAT_VERSION}"
    if not isinstance(found, int) or found < FORMAT_VERSION:
        return text
    known = isinstance(written_by, str) and _RELEASE.fullmatch(written_by)
    return f"{text}: pip install " + (f"'toto-video>={written_by}'" if known else "--upgrade toto-video")


def row_schema(token_dtype: np.dtype, metadata: dict[str, Any]) -> pa.Schema:
    """The schema of a shard; `metadata` holds the facts that are constant in it."""
    return pa.schema(
        [
            pa.field("row_id", pa.binary(16), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("run", pa.uint32(), nullable=False),
            pa.field("view", pa.uint8(), nullable=False),
            pa.field("kind", pa.uint8(), nullable=False),
            pa.field("n_frames", pa.uint16(), nullable=False),
            pa.field("grid_h", pa.uint16(), nullable=False),
            pa.field("grid_w", pa.uint16(), nullable=False),
            pa.field("tokens", pa.large_list(pa.from_numpy_dtype(token_dtype)), nullable=False),
            pa.field("pixels", pa.large_binary()),
            pa.field("label", pa.int32()),
            pa.field("frame0", pa.int64(), nullable=False),
            pa.field("frame_step", pa.uint16(), nullable=False),
            pa.field("frame_index", pa.list_(pa.int32())),
            pa.field("pts_us", pa.int64()),
            pa.field("dt_us", pa.int32()),
            pa.field("pts_list_us", pa.list_(pa.int64())),
            pa.field("crop", pa.list_(pa.int32(), 4), nullable=False),
            pa.field("flags", pa.uint16(), nullable=False),
        ],
        metadata={METADATA_KEY: json.dumps(metadata, sort_keys=True)},
    )


SOURCES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("attempt", pa.uint16(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # ok | quarantined
        pa.field("reason", pa.string()),  # why quarantined
        pa.field("detail", pa.string()),
        pa.field("label", pa.int32()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("codec", pa.string()),
        pa.field("width", pa.int32()),  # upright source pixels
        pa.field("height", pa.int32()),
        pa.field("fps", pa.float64()),
        pa.field("rate", pa.float64()),  # frames per second that the container claims
        pa.field("frames_decoded", pa.int64(), nullable=False),
        pa.field("frames_kept", pa.int64(), nullable=False),
        pa.field("duration_s", pa.float64()),
        pa.field("flags", pa.uint16(), nullable=False),
        pa.field("errors", pa.int32(), nullable=False),  # packets that did not decode
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("run_lengths", pa.list_(pa.uint16()), nullable=False),  # frames of each run, once for all views
    ]
)


@dataclass(frozen=True)
class RowRecord:
    """One row as it is written: a value per column of `row_schema`."""

    row_id: bytes
    source: str
    run: int
    view: int
    kind: int
    n_frames: int
    grid_h: int
    grid_w: int
    tokens: np.ndarray  # ids [2 + n_frames * grid_h * grid_w]
    pixels: bytes | None  # uint8 [n_frames, R', R', 3], C order
    label: int | None
    frame0: int
    frame_step: int
    frame_index: np.ndarray | None  # int32 [n_frames], only where the steps are uneven
    pts_us: int | None
    dt_us: int | None
    pts_list_us: np.ndarray | None  # int64 [n_frames], only where a frame is off the grid by more than 1 ms
    crop: tuple[int, int, int, int]
    flags: int


def row_id(source: str, run: int, view: int) -> bytes:
    """16 bytes: xxh3-128 of source key (UTF-8), a zero byte, run (u32 LE), view (u8)."""
    key = source.encode() + b"\0" + run.to_bytes(4, "little") + view.to_bytes(1, "little")
    return xxhash.xxh3_128_digest(key)


def row_ids(sources: Sequence[bytes], runs: np.ndarray, views: np.ndarray) -> bytes:
    """`row_id` of each row, one after the other; sources in UTF-8."""
    behind = np.zeros(len(sources), [("zero", "u1"), ("run", "<u4"), ("view", "u1")])
    behind["run"], behind["view"] = runs, views
    tails, size, digest = behind.tobytes(), behind.itemsize, xxhash.xxh3_128_digest
    places = range(0, len(tails), size)
    return b"".join([digest(source + tails[i : i + size]) for source, i in zip(sources, places, strict=True)])


def rows_to_batch(rows: list[RowRecord], schema: pa.Schema) -> pa.RecordBatch:
    """Rows -> one record batch; token arrays are joined without going through Python numbers."""
    columns = []
    for field in schema:
        values = [getattr(row, field.name) for row in rows]
        columns.append(_tokens_array(values, field.type) if field.name == "tokens" else pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _tokens_array(arrays: list[np.ndarray], kind: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(arrays) + 1, np.int64)
    np.cumsum([len(ids) for ids in arrays], out=offsets[1:])
    values = np.concatenate(arrays) if arrays else np.empty(0, kind.value_type.to_pandas_dtype())
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, kind.value_type), type=kind)


def hash_of_key(key: str) -> np.uint64:
    """xxh3-64 of a source's key: how tables in memory name sources."""
    return np.uint64(xxhash.xxh3_64_intdigest(key.encode()))


def hashes_of_keys(keys: Sequence[str]) -> np.ndarray:
    """uint64 [k]: that of each key."""
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), np.uint64, len(keys))
