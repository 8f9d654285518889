"""Tables as the bytes of Parquet files, and back."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file's table; pa.ArrowException or OSError when it is not one.

    Single-threaded: with pyarrow 26, pq.read_table's threads abort the interpreter now and then when it exits soon
    after ("terminate called without an active exception", 4 of 60 runs).
    """
    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(columns=columns, use_threads=False)
