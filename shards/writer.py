"""Rows -> one shard file: Arrow IPC, zstd buffers, record batches of about 128 KiB of tokens.

Rows come one by one, or as the record batches of another shard; how they came does not show in what is written. Each
batch carries the xxh3-128 of its logical values in its own metadata (Arrow has no checksums), so that a reader
notices damage when it first loads the batch. Memory stays flat: at most one batch of rows is held.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.hashing import Columns, ContentHasher, batch_hash
from toto.shards.schema import RowRecord, row_schema, rows_to_batch

BATCH_TOKEN_BYTES = 128 * 1024  # 16 windows of 4,096 ids
BATCH_PIXEL_BYTES = 16 * 1024 * 1024
BATCH_HASH_KEY = b"xxh3"
ZSTD_LEVEL = 9  # a tenth less than level 1 on tokens of real video, at 10 M ids/s (bench/shard_compression.py)
_LENGTHS = {"tokens": pc.list_value_length, "pixels": pc.binary_length}


@dataclass(frozen=True)
class ShardSummary:
    """What a finished shard holds."""

    rows: int
    frames: int
    tokens: int
    batch_rows: list[int]
    content_hash: str


class ShardWriter:
    """Writes rows in the order given; `close` returns the summary. The file is whole only after `close`."""

    def __init__(self, path: Path, token_dtype: Any, metadata: dict[str, Any]) -> None:
        self._schema = row_schema(token_dtype, metadata)
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=ZSTD_LEVEL), use_threads=False)
        self._file = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema, options=options)
        self._columns, self._hasher = Columns(self._schema), ContentHasher(self._schema)
        self._rows: list[RowRecord] = []  # the last ones to come; before them, the batches in _parts
        self._parts: list[pa.RecordBatch] = []
        self._token_bytes = self._pixel_bytes = 0
        self._frames = self._tokens = 0
        self._batch_rows: list[int] = []

    def write(self, row: RowRecord) -> None:
        """Adds one row; goes to disk when a batch is full."""
        self._rows.append(row)
        self._frames += row.n_frames
        self._tokens += len(row.tokens)
        self._token_bytes += row.tokens.nbytes
        self._pixel_bytes += len(row.pixels or b"")
        if self._token_bytes >= BATCH_TOKEN_BYTES or self._pixel_bytes >= BATCH_PIXEL_BYTES:
            self._flush()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Adds rows that stand in a batch of the same columns; they are cut into batches as if written one by one."""
        self._join_rows()
        batch = pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
        ids, pixels = (pc.fill_null(length(batch[name]), 0).to_numpy() for name, length in _LENGTHS.items())
        token_bytes = np.cumsum(ids * self._schema.field("tokens").type.value_type.bit_width // 8)
        pixel_bytes = np.cumsum(pixels)
        start = 0
        while start < batch.num_rows:
            before = (int(token_bytes[start - 1]), int(pixel_bytes[start - 1])) if start else (0, 0)
            full = (
                np.searchsorted(token_bytes, BATCH_TOKEN_BYTES - self._token_bytes + before[0]),
                np.searchsorted(pixel_bytes, BATCH_PIXEL_BYTES - self._pixel_bytes + before[1]),
            )
            stop = min(int(min(full)) + 1, batch.num_rows)
            self._parts.append(batch.slice(start, stop - start))
            self._tokens += int(ids[start:stop].sum())
            self._frames += int(batch["n_frames"].slice(start, stop - start).to_numpy().sum())
            self._token_bytes += int(token_bytes[stop - 1]) - before[0]
            self._pixel_bytes += int(pixel_bytes[stop - 1]) - before[1]
            if stop > min(full):
                self._flush()
            start = stop

    def close(self) -> ShardSummary:
        """Writes the last batch and the footer."""
        self._flush()
        self._writer.close()
        self._file.close()
        return ShardSummary(
            sum(self._batch_rows), self._frames, self._tokens, self._batch_rows, self._hasher.hexdigest()
        )

    def abandon(self) -> None:
        """Closes the file without finishing it; does nothing after `close`."""
        self._file.close()

    def _flush(self) -> None:
        self._join_rows()
        if not self._parts:
            return
        batch = pa.concat_batches(self._parts) if len(self._parts) > 1 else self._parts[0]
        hashed = batch_hash(self._columns, batch, self._hasher)
        self._writer.write_batch(batch, custom_metadata={BATCH_HASH_KEY: hashed})
        self._batch_rows.append(batch.num_rows)
        self._parts.clear()
        self._token_bytes = self._pixel_bytes = 0

    def _join_rows(self) -> None:
        if self._rows:
            self._parts.append(rows_to_batch(self._rows, self._schema))
            self._rows = []
