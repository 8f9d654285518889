"""zstd level × ids in a record batch -> bytes a token, ids written and inflated a second, time of a random window."""

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa

from toto import Dataset
from toto.shards.schema import row_schema
from toto.shards.writer import BATCH_TOKEN_BYTES, ZSTD_LEVEL

LEVELS = (1, 3, 6, 9, 12)
BATCH_KIB = (128, 256, 512, 1024, 4096)
WINDOWS = 200  # read at random
FRAMES = 16_384  # of the dataset: enough for 16 batches of the largest size


@dataclass(frozen=True)
class Found:
    """One level and batch size."""

    level: int
    kib: int
    bytes_a_token: float
    written: float  # million ids a second
    inflated: float
    window_ms: float

    def as_json(self, usual: "Found") -> dict[str, Any]:
        """Held against the level and batch size that shards are written with."""
        what = f"zstd {self.level}, batches of {self.kib} KiB, against those of our shards"
        ratio = usual.bytes_a_token / self.bytes_a_token
        sides = {"ours": usual.bytes_a_token, "peer": self.bytes_a_token}
        return {"what": what, **sides, "unit": "bytes/token", "ratio": 1 / ratio, "bar": None}


def measure(root: Path) -> list[Found]:
    """Every level with every size, on the first frames of the dataset."""
    rows = _rows(root)
    found = [_found(rows, level, kib) for level in LEVELS for kib in BATCH_KIB]
    for one in found:
        click.echo(
            f"zstd {one.level}, {one.kib:>4} KiB a batch: {one.bytes_a_token:.4f} bytes/token, written "
            f"{one.written:,.0f} M ids/s, inflated {one.inflated:,.0f} M ids/s, a random window {one.window_ms:.2f} ms"
        )
    return found


def usual(found: list[Found]) -> Found:
    """What the writer of shards does."""
    return next(one for one in found if (one.level, one.kib << 10) == (ZSTD_LEVEL, BATCH_TOKEN_BYTES))


def markdown(found: list[Found]) -> str:
    """Bytes a token by level and size; inflating and a random window at the usual level."""
    head = "| ids of a batch, KiB | " + " | ".join(f"zstd {level}" for level in LEVELS)
    lines = [head + " | random window, ms | inflated, M ids/s |", "|---:" * (len(LEVELS) + 3) + "|"]
    for kib in BATCH_KIB:
        same = [one for one in found if one.kib == kib]
        sizes = " | ".join(f"{one.bytes_a_token:.4f}" for one in same)
        lines.append(f"| {kib} | {sizes} | {same[0].window_ms:.2f} | {same[0].inflated:,.0f} |")
    lines.append("| written, M ids/s | " + " | ".join(
        f"{next(one for one in found if (one.level, one.kib) == (level, 512)).written:,.0f}" for level in LEVELS
    ) + " | | |")  # fmt: skip
    return "\n".join(lines)


def _rows(root: Path) -> pa.Table:
    """The first rows of the dataset, as they are stored."""
    batches, frames = [], 0
    for _, _, batch in Dataset(root).batches():
        batches.append(batch.arrow)
        frames += int(batch.n_frames.sum())
        if frames >= FRAMES:
            break
    return pa.Table.from_batches(batches).cast(row_schema(np.dtype(np.uint16), {})).combine_chunks()


def _found(rows: pa.Table, level: int, kib: int) -> Found:
    ids = len(rows["tokens"].chunk(0).values)
    per_batch = max(1, round((kib << 9) / (ids / len(rows))))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.arrow"
        seconds = _median(lambda: _write(path, rows, per_batch, level))
        reader = pa.ipc.open_file(pa.memory_map(str(path)), options=pa.ipc.IpcReadOptions(use_threads=False))
        inflating = _median(lambda: [reader.get_batch(i) for i in range(reader.num_record_batches)])
        picks = np.random.default_rng(0).integers(0, reader.num_record_batches, WINDOWS)
        window = statistics.median(_timed(lambda i=i: _window(reader.get_batch(i))) for i in picks)
        return Found(level, kib, path.stat().st_size / ids, ids / seconds / 1e6, ids / inflating / 1e6, window * 1e3)


def _write(path: Path, rows: pa.Table, per_batch: int, level: int) -> None:
    options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=level), use_threads=False)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, rows.schema, options=options) as writer:
        writer.write_table(rows, max_chunksize=per_batch)


def _window(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column("tokens").values.to_numpy()[:4098].copy()


def _median(work) -> float:
    return statistics.median(_timed(work) for _ in range(3))


def _timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
