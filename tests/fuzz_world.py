"""A small dataset with every kind of file and column, and what an attacker does to it: changes a file, then makes all
hashes match again, so that only the parsers stand between the file and the reader.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import token_world
from token_world import still_images, write_tokens

from toto.shards.hashing import content_hash, json_sha256
from toto.shards.manifest import MANIFEST_SCHEMA
from toto.shards.parquet import parquet_bytes
from toto.shards.snapshot import dataset_id, snapshot_bytes

SIDE = 2  # pixels


def make_world(root: Path) -> Path:
    """Three units of two splits: videos with labels, pixels, uneven frames and times; images; views, annotations."""
    rows_of = token_world._rows
    videos = [
        token_world.Video(f"{split}/{i}.mp4", codes, split, i % 2, views=1, runs=(len(codes) - 2, 2) if i else ())
        for split in ("train", "val")
        for i, codes in enumerate(token_world.moving_codes(3, frames=20, grid=(2, 2), vocab_size=64)[0])
    ]

    def uneven(source: Any, dtype: Any, stride: int) -> Any:
        for row in rows_of(source, dtype, stride):
            n = row.n_frames
            steps = np.arange(n, dtype=np.int32) * stride
            odd = row.source.endswith("0.mp4")
            yield replace(
                row,
                pixels=bytes(range(3 * SIDE * SIDE)) * n,
                frame_index=steps if odd else None,
                pts_list_us=steps.astype(np.int64) * 1000 if odd else None,
                pts_us=None if odd else row.pts_us,
                dt_us=None if odd else row.dt_us,
            )

    with patch.object(token_world, "_rows", uneven):
        return write_tokens(
            root, videos, still_images(3, (2, 2)), vocab_size=64, unit_sources=4, batch_bytes=256, keep_pixels=SIDE
        )


def kind_of(name: str) -> str:
    """What a file of the dataset is: its folder, or its name in the root."""
    return name.partition("/")[0]


def files_of(root: Path) -> list[str]:
    """All files of the dataset that a reader may open."""
    names = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return sorted(name for name in names if kind_of(name) not in ("tmp", "README.md"))


def with_file(pristine: Path, target: Path, name: str, data: bytes, fix: bool) -> Path:
    """A copy of the dataset with one file replaced; `fix` makes the hashes of everything that names it match."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(pristine, target, ignore=shutil.ignore_patterns("tmp"))
    (target / name).write_bytes(data)
    if fix:
        _fix(target, name, data)
    return target


def _fix(root: Path, name: str, data: bytes) -> None:
    kind = kind_of(name)
    ref = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    if kind in ("dataset.json", "commits"):
        _fix_json(root / name)
        return
    value = json.loads((root / "dataset.json").read_text())
    value.pop("sha256")
    if kind in ("shards", "sources"):
        _fix_unit(root, value, name, ref)
    for files in (value["files"], value["files"]["annotations"], value["files"]["views"]):
        for file in files.values():
            if isinstance(file, dict) and file.get("path") == name:
                file.update(ref)
    if kind == "annotations":
        key = next(key for key, file in value["files"]["annotations"].items() if file["path"] == name)
        value["annotations"][key] = _content(data) or value["annotations"][key]
    _fix_identity(root, value)
    (root / "dataset.json").write_bytes(snapshot_bytes(value))


def _fix_json(path: Path) -> None:
    """The file's own hash, where it is still JSON; commits are written in one line."""
    try:
        value = json.loads(path.read_bytes())
        value.pop("sha256", None)
        if path.name == "dataset.json":
            path.write_bytes(snapshot_bytes(value))
        else:
            path.write_bytes(json.dumps({**value, "sha256": json_sha256(value)}, sort_keys=True).encode() + b"\n")
    except (ValueError, AttributeError, TypeError, RecursionError):
        return


def _fix_unit(root: Path, value: dict[str, Any], name: str, ref: dict[str, Any]) -> None:
    """Commit and manifest of the unit whose shard or results were changed."""
    shard = kind_of(name) == "shards"
    manifest = root / value["files"]["manifest"]["path"]
    units = pq.read_table(manifest, use_threads=False).to_pylist()
    unit = next(unit for unit in units if name in (unit["path"], unit["sources_path"]))
    unit.update(ref if shard else {f"sources_{key}": item for key, item in ref.items()})
    commit_path = root / "commits" / f"{unit['unit']}.json"
    commit = json.loads(commit_path.read_text())
    commit["shard" if shard else "sources"].update(ref)
    commit_path.write_text(json.dumps(commit))
    _fix_json(commit_path)
    data = parquet_bytes(pa.Table.from_pylist(units, MANIFEST_SCHEMA))
    manifest.write_bytes(data)
    value["files"]["manifest"].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _fix_identity(root: Path, value: dict[str, Any]) -> None:
    """The dataset id, where the manifest can still be read."""
    try:
        manifest = pq.read_table(root / value["files"]["manifest"]["path"], use_threads=False)
        pairs = zip(manifest["unit"].to_pylist(), manifest["content_hash"].to_pylist(), strict=True)
        value["dataset_id"] = dataset_id(value["tokenizer"]["id"], value["settings"], pairs, value["annotations"])
    except Exception:  # a manifest that was changed: whatever pyarrow says of it
        return


def _content(data: bytes) -> str | None:
    try:
        return content_hash(pq.read_table(pa.BufferReader(data), use_threads=False))
    except Exception:  # the same
        return None
