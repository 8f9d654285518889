"""Rows -> one shard file: Arrow IPC, zstd buffers, record batches of about 512 KiB of tokens.

Each batch carries the xxh3-128 of its logical values in its own metadata (Arrow has no checksums), so that a reader
notices damage when it first loads the batch. Memory stays flat: at most one batch of rows is held.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from toto.shards.hashing import ContentHasher, content_hash
from toto.shards.schema import RowRecord, row_schema, rows_to_batch

BATCH_TOKEN_BYTES = 512 * 1024  # 0.5 ms to inflate one batch for a random window
BATCH_PIXEL_BYTES = 16 * 1024 * 1024
BATCH_HASH_KEY = b"xxh3"
ZSTD_LEVEL = 1  # higher levels buy nothing on token ids


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
        self._hasher = ContentHasher(self._schema)
        self._rows: list[RowRecord] = []
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
        if not self._rows:
            return
        batch = rows_to_batch(self._rows, self._schema)
        self._hasher.update(batch)
        self._writer.write_batch(batch, custom_metadata={BATCH_HASH_KEY: content_hash(batch)})
        self._batch_rows.append(len(self._rows))
        self._rows.clear()
        self._token_bytes = self._pixel_bytes = 0
