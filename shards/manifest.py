"""Commits and per-source results -> the manifest: one row per unit, read by everything that opens a dataset."""

from collections import Counter
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.commit import Commit
from toto.shards.schema import SOURCES_SCHEMA

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.string(), nullable=False),
        pa.field("path", pa.string()),  # null where no source of the unit gave a row
        pa.field("split", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("frames", pa.int64(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("batch_rows", pa.list_(pa.uint32()), nullable=False),
        # rows of video runs by their number of frames: window counts are exact without opening a shard
        pa.field("runs_by_length", pa.map_(pa.uint32(), pa.uint64()), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("sources_path", pa.string(), nullable=False),
        pa.field("sources_sha256", pa.string(), nullable=False),
        pa.field("sources_bytes", pa.int64(), nullable=False),
    ]
)


def manifest_table(commits: list[Commit], results: list[pa.Table]) -> pa.Table:
    """The manifest of these commits; `results` holds each commit's per-source table, in the same order."""
    rows = []
    for commit, table in zip(commits, results, strict=True):
        videos, images = _runs_by_length(table)
        shard = asdict(commit.shard) if commit.shard else {"path": None, "bytes": 0, "sha256": None}
        sources = {f"sources_{key}": value for key, value in asdict(commit.sources).items()}
        kept = {field.name: getattr(commit, field.name) for field in MANIFEST_SCHEMA if hasattr(commit, field.name)}
        rows.append({**kept, **shard, **sources, "runs_by_length": sorted(videos.items()), "images": images})
    return pa.Table.from_pylist(rows, MANIFEST_SCHEMA)


def final_results(tables: list[pa.Table]) -> pa.Table:
    """Of each source the result of its highest attempt, in the order of the units."""
    results = pa.concat_tables(tables) if tables else SOURCES_SCHEMA.empty_table()
    last: dict[str, tuple[int, int]] = {}
    for i, (key, attempt) in enumerate(zip(results["key"].to_pylist(), results["attempt"].to_pylist(), strict=True)):
        if key not in last or attempt > last[key][0]:
            last[key] = (attempt, i)
    return results.take(pa.array(sorted(i for _, i in last.values()), pa.int64()))


def totals(manifest: pa.Table) -> dict[str, int]:
    """Shards, rows, frames, tokens and bytes of these manifest rows."""
    names = ("rows", "frames", "tokens", "bytes")
    return {
        "shards": len(manifest) - manifest["path"].null_count,
        **{name: pc.sum(manifest[name]).as_py() or 0 for name in names},
    }


def _runs_by_length(results: pa.Table) -> tuple[Counter[int], int]:
    """(rows of video runs by their number of frames, image rows) of one unit."""
    videos: Counter[int] = Counter()
    images = 0
    for kind, lengths, rows in zip(
        *(results[name].to_pylist() for name in ("kind", "run_lengths", "rows")), strict=True
    ):
        if kind == "image":
            images += rows
            continue
        for length in lengths:
            videos[length] += rows // len(lengths)
    return videos, images
