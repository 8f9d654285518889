"""Commits and per-source results -> the manifest: one row per unit, read by everything that opens a dataset."""

from collections import Counter
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.shards.commit import Commit
from toto.shards.parquet import read_table
from toto.shards.schema import HIGHEST_RATE, SOURCES_SCHEMA, hashes_of_keys
from toto.shards.untrusted.manifest_rules import MOST_ROWS

ROWS_AT_ONCE = 65_536
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


def results_table(data: bytes, name: str) -> pa.Table:
    """The per-source results of a unit from their file; UserError, naming it, where they contradict themselves."""
    table = read_table(data, name, schema=SOURCES_SCHEMA)
    rows = _numpy(table["rows"])
    runs = _numpy(pc.list_value_length(table["run_lengths"]))
    videos = _numpy(pc.not_equal(table["kind"], "image")) & (rows > 0)
    of_video = np.repeat(videos, runs)
    if (_numpy(pc.list_flatten(table["run_lengths"]))[of_video] == 0).any():
        raise UserError(f"{name}: not a table that toto wrote (a run of no frames)")
    rate = table["rate"]
    if pc.any(pc.invert(pc.and_(pc.greater(rate, 0), pc.less_equal(rate, HIGHEST_RATE)))).as_py():
        raise UserError(f"{name}: not a table that toto wrote (a rate of no video)")
    odd = (rows < 0) | (videos & ((runs == 0) | (rows % np.maximum(runs, 1) != 0)))
    if odd.any() or rows.sum(dtype=np.float64) > MOST_ROWS:
        raise UserError(f"{name}: not a table that toto wrote (its rows do not follow from its runs)")
    return table


def row_lengths(results: pa.Table) -> np.ndarray:
    """uint16: frames of each row of these sources in their order, 0 for images; the views of a run are adjacent."""
    rows, runs = _numpy(results["rows"]), _numpy(pc.list_value_length(results["run_lengths"]))
    video = _numpy(pc.not_equal(results["kind"], "image")) & (rows > 0)
    source = np.repeat(np.arange(len(rows)), np.where(video, runs, 1))  # of each run; an image, or nothing, is one
    lengths = np.zeros(len(source), np.uint16)
    lengths[video[source]] = _numpy(pc.list_flatten(results["run_lengths"]))[np.repeat(video, runs)]
    return np.repeat(lengths, np.where(video, rows // np.maximum(runs, 1), rows)[source])


def _numpy(column: pa.ChunkedArray) -> np.ndarray:
    """A column's values; not by ChunkedArray.to_numpy, which imports pandas where it is installed: 0.5 s."""
    return column.combine_chunks().to_numpy(zero_copy_only=False)


def final_results(tables: list[pa.Table]) -> pa.Table:
    """Of each source the result of its highest attempt, in the order of the units."""
    results = pa.concat_tables(tables) if tables else SOURCES_SCHEMA.empty_table()
    results = results.replace_schema_metadata()  # of one unit's file
    again = _of_shared_keys(results["key"])
    if not len(again):
        return results
    last: dict[str, tuple[int, int]] = {}
    columns = (results[name].take(pa.array(again)).to_pylist() for name in ("key", "attempt"))
    for i, key, attempt in zip(again.tolist(), *columns, strict=True):
        if key not in last or attempt > last[key][0]:
            last[key] = (attempt, i)
    wanted = np.ones(len(results), bool)
    wanted[again] = False
    wanted[[i for _, i in last.values()]] = True
    return results.filter(pa.array(wanted))


def _of_shared_keys(keys: pa.ChunkedArray) -> np.ndarray:
    """int64, ascending: the rows whose key others may have too, by a hash. Of millions no object of each is kept."""
    parts = [hashes_of_keys(keys.slice(at, ROWS_AT_ONCE).to_pylist()) for at in range(0, len(keys), ROWS_AT_ONCE)]
    hashes = np.concatenate([np.empty(0, np.uint64), *parts])
    order = np.argsort(hashes)
    same = np.append(hashes[order[1:]] == hashes[order[:-1]], False)[: len(order)]  # as the next one
    return np.sort(order[same | np.roll(same, 1)])


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
