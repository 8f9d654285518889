"""A dataset read by docs/format.md alone: by other tools, and by a content hash written anew from its four rules."""

import json
import re
import struct
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from token_world import Image, Video, moving_videos, still_images, write_tokens

from toto import Dataset
from toto.errors import UserError
from toto.shards.hashing import content_hash, json_sha256

LETTERS = {
    "bool": "?",
    "uint8": "B",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float32": "f",
    "float64": "d",
}
TYPES = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    videos = [Video(v.key, v.codes, label=v.label, views=2, runs=(9, 3)) for v in moving_videos(5, frames=12)]
    val = [Video(v.key, v.codes, "val", views=2) for v in moving_videos(2, "val", frames=6)]
    images = [Image(i.key, i.codes, label=i.label, views=2) for i in still_images(3)]
    root = tmp_path_factory.mktemp("format") / "shards"
    return write_tokens(root, [*videos, *val], images, unit_sources=3, batch_bytes=600)


def files_of(root: Path) -> dict[str, list[Path]]:
    """The shards of each split, in the order of the manifest; by the page, not by toto."""
    info = json.loads((root / "dataset.json").read_text())
    found: dict[str, list[Path]] = {}
    for unit in pq.read_table(root / info["files"]["manifest"]["path"]).to_pylist():
        if unit["path"] is not None:
            found.setdefault(unit["split"], []).append(root / unit["path"])
    return found


@pytest.mark.parametrize("split", ["train", "val"])
def test_duckdb_reads_every_row(shards: Path, split: str) -> None:
    tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for path in files_of(shards)[split]]
    database = duckdb.connect()
    database.register("shards", pa.concat_tables(tables))
    query = "select source, run, view, kind, n_frames, grid_h, grid_w, tokens, label, crop, hex(row_id) from shards"
    found = database.execute(query).fetchall()
    rows = list(Dataset(shards, split=split).rows())
    assert len(found) == len(rows)
    for line, row in zip(found, rows, strict=True):
        *plain, tokens, label, crop, row_id = line
        assert plain == [row.source, row.run, row.view, row.kind, row.n_frames, row.grid_h, row.grid_w]
        assert (tokens, label, tuple(crop)) == (row.tokens.tolist(), row.label, row.crop)
        assert row_id.lower() == row.row_id.hex()


def test_duckdb_counts_by_manifest_and_sources_alone(shards: Path) -> None:
    info = json.loads((shards / "dataset.json").read_text())
    manifest = shards / info["files"]["manifest"]["path"]
    database = duckdb.connect()
    query = f"select split, sum(rows), sum(frames), sum(tokens), sum(bytes) from '{manifest}' group by split"
    names = ("rows", "frames", "tokens", "bytes")
    said = {split: tuple(part[name] for name in names) for split, part in info["splits"].items()}
    assert {split: tuple(map(int, sums)) for split, *sums in database.execute(query).fetchall()} == said
    query = f"select count(*), sum(rows), sum(tokens), sum(list_sum(run_lengths)) from '{shards}/sources/*.parquet'"
    sources, rows, tokens, frames = database.execute(query).fetchall()[0]
    totals = info["totals"]
    assert (sources, rows, tokens, 2 * frames) == tuple(totals[k] for k in ("sources", "rows", "tokens", "frames"))


def test_hugging_face_reads_every_row(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    from datasets import load_dataset

    files = {split: [str(path) for path in paths] for split, paths in files_of(shards).items()}
    loaded = load_dataset("arrow", data_files=files, cache_dir=str(tmp_path))
    for split in files:
        rows = list(Dataset(shards, split=split).rows())
        assert loaded[split].num_rows == len(rows)
        for found, row in zip(loaded[split], rows, strict=True):
            assert (found["source"], found["run"], found["view"]) == (row.source, row.run, row.view)
            assert found["tokens"] == row.tokens.tolist() and found["row_id"] == row.row_id


def test_a_snapshot_of_another_version_is_refused_with_the_version_that_is_read(shards: Path, tmp_path: Path) -> None:
    value = json.loads((shards / "dataset.json").read_text())
    del value["sha256"]
    value["format_version"] = 7
    (tmp_path / "dataset.json").write_text(json.dumps({**value, "sha256": json_sha256(value)}))
    with pytest.raises(UserError, match=r"7.* 1\b"):
        Dataset(tmp_path)


def column_digests(name: str, values: list[Any]) -> bytes:
    """The three digests of a column of this type name, from the page's rules; no Arrow, no NumPy."""
    kind = re.fullmatch(r"(?:list<(\w+)>|(\w+))(?:\[(\d+)\])?", name)
    assert kind is not None
    element, plain, size = kind.groups()
    lengths = values_ = b""
    for value in values:
        if element:
            values_ += struct.pack(f"<{len(value or [])}{LETTERS[element]}", *(value or []))
            lengths += b"" if size else struct.pack("<Q", len(value or []))
        elif plain in ("string", "binary"):
            data = b"" if value is None else value.encode() if isinstance(value, str) else value
            lengths, values_ = lengths + struct.pack("<Q", len(data)), values_ + data
        else:
            values_ += struct.pack(f"<{LETTERS[plain]}", 0 if value is None else value)
    validity = bytes(value is not None for value in values)
    return b"".join(map(xxhash.xxh3_128_digest, (validity, lengths, values_)))


def hash_anew(columns: dict[str, tuple[str, list[Any]]]) -> str:
    whole = b"".join(
        f"{name}\0{kind}\0".encode() + column_digests(kind, values) for name, (kind, values) in columns.items()
    )
    return xxhash.xxh3_128_hexdigest(whole)


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a type name as the page spells it."""
    if found := re.fullmatch(r"(large_)?list<(\w+)>(?:\[(\d+)\])?", name):
        element = pa.from_numpy_dtype(np.dtype(found[2]))
        return pa.list_(element, int(found[3])) if found[3] else (pa.large_list if found[1] else pa.list_)(element)
    if found := re.fullmatch(r"binary\[(\d+)\]", name):
        return pa.binary(int(found[1]))
    return TYPES[name]


def published() -> list[tuple[str, str]]:
    text = (Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text()
    below = text.split("| table | content hash |")[1].split("\n\n")[0]
    return re.findall(r"^\| (.+) \| `([0-9a-f]{32})` \|$", below, re.MULTILINE)


@pytest.mark.parametrize(("spelled", "expected"), published())
def test_a_published_hash_is_that_of_its_table(spelled: str, expected: str) -> None:
    values = json.loads(f"[{spelled.split(' = ')[1]}]") if " = " in spelled else []
    columns = {name: (kind, values) for name, kind in re.findall(r"`(\w+): ([^`]+)`", spelled)}
    assert hash_anew({name: (kind.removeprefix("large_"), v) for name, (kind, v) in columns.items()}) == expected
    assert content_hash(pa.table({name: pa.array(v, arrow_type(k)) for name, (k, v) in columns.items()})) == expected


def test_vectors_of_every_kind_are_published() -> None:
    spelled = " ".join(text for text, _ in published())
    assert len(published()) >= 11
    for what in (
        "null",
        "float64",
        "bool",
        "list<int32>`",
        "list<int32>[4]",
        "list<float32>[2]`",
        "binary[16]",
        "no rows",
        "string",
    ):
        assert what in spelled, what


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "float32": st.floats(allow_nan=False, width=32),
    "float64": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(max_size=4),
    "binary[16]": st.binary(min_size=16, max_size=16),
    "list<uint16>": st.lists(st.integers(0, 65_535), max_size=4),
    "list<int32>[4]": st.lists(st.integers(-9, 9), min_size=4, max_size=4),
    "list<float32>[2]": st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=2),
}


@settings(max_examples=40)
@given(st.data())
def test_a_hash_written_anew_from_the_page_agrees(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    rows = data.draw(st.integers(0, 6))
    columns = {
        f"c{i}": (kind, data.draw(st.lists(st.none() | VALUES[kind], min_size=rows, max_size=rows)))
        for i, kind in enumerate(names)
    }
    table = pa.table({name: pa.array(values, arrow_type(kind)) for name, (kind, values) in columns.items()})
    assert content_hash(table) == hash_anew(columns)
    start = data.draw(st.integers(0, rows))
    part = {name: (kind, values[start:]) for name, (kind, values) in columns.items()}
    assert content_hash(table.slice(start)) == hash_anew(part)


def test_the_hash_of_every_batch_and_shard_is_that_of_the_page(shards: Path) -> None:
    info = json.loads((shards / "dataset.json").read_text())
    for unit in pq.read_table(shards / info["files"]["manifest"]["path"]).to_pylist():
        reader = pa.ipc.open_file(pa.memory_map(str(shards / unit["path"])))
        for i in range(reader.num_record_batches):
            batch, metadata = reader.get_batch_with_custom_metadata(i)
            assert metadata["xxh3"].decode() == hash_anew(spelled_columns(batch))
        assert unit["content_hash"] == hash_anew(spelled_columns(reader.read_all()))


def spelled_columns(table: pa.Table | pa.RecordBatch) -> dict[str, tuple[str, list[Any]]]:
    names = {"fixed_size_binary[16]": "binary[16]", "fixed_size_list<item: int32>[4]": "list<int32>[4]"}

    def spelled(kind: pa.DataType) -> str:
        return names.get(str(kind)) or re.sub(r"large_|(item|element): | not null", "", str(kind))

    return {field.name: (spelled(field.type), table.column(field.name).to_pylist()) for field in table.schema}


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 2)])
def test_what_lies_under_a_null_inside_a_list_is_not_hashed(kind: pa.DataType) -> None:
    hashes = set()
    for under in (0, 7):
        validity, numbers = pa.py_buffer(b"\x05"), pa.py_buffer(np.array([1, under, 3, under], np.int32))
        values = pa.Array.from_buffers(pa.int32(), 4, [validity, numbers])
        ends = (
            []
            if pa.types.is_fixed_size_list(kind)
            else [np.array([0, 2, 4], np.int32 if pa.types.is_list(kind) else np.int64)]
        )
        lists = pa.Array.from_buffers(kind, 2, [None, *map(pa.py_buffer, ends)], children=[values])
        assert lists.to_pylist() == [[1, None], [3, None]]
        hashes.add(content_hash(pa.table({"c": lists})))
    assert len(hashes) == 1
