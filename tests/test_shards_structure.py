"""Files that strangers made are refused before Arrow parses them, and what Arrow may parse takes bounded memory."""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_shards import Target
from fuzz_world import SIDE, files_of, kind_of, make_world, with_file
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toto import Dataset
from toto.errors import UserError
from toto.shards import ids
from toto.shards.batch import Batch
from toto.shards.manifest import MANIFEST_SCHEMA, results_table
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.reader import DamagedShard, ShardReader
from toto.shards.schema import SOURCES_SCHEMA, RowRecord, row_id
from toto.shards.store import open_store
from toto.shards.untrusted.manifest_rules import check_manifest
from toto.shards.untrusted.parquet_structure import strings_to_measure
from toto.shards.untrusted.structure import Structure
from toto.shards.verify import verify
from toto.shards.writer import ShardWriter

KEPT = Path(__file__).with_name("fuzz")
FACTS = {
    "format_version": 1,
    "tokenizer": {"id": "t", "vocab_size": 60_000},
    "settings": {"keep_pixels": SIDE, "crop": "center"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with every kind of file and column."""
    return make_world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module")
def shard(world: Path) -> bytes:
    """The bytes of one of its shards."""
    return sorted((path.read_bytes() for path in (world / "shards").iterdir()), key=len)[1]


def structure(data: bytes) -> Structure:
    """Of bytes in memory; reading outside of them fails the test."""

    def read(start: int, length: int) -> bytes:
        assert 0 <= start <= start + length <= len(data)
        return data[start : start + length]

    return Structure(read, len(data))


def check(data: bytes) -> int:
    """Looks at all batches of a shard; their rows together."""
    found, rows = structure(data), 0
    for i in range(found.batches):
        block = found.block(i)
        rows += found.check_batch(i, data[block.offset :][: block.size]).rows
    return rows


def rows_of(data: bytes, folder: Path) -> list[dict[str, Any]]:
    """All rows, by the reader."""
    path = folder / "shard.arrow"
    path.write_bytes(data)
    with ShardReader(path, "shard.arrow") as reader:
        return [row for i in range(reader.batches) for row in reader.batch(i).to_pylist()]


@st.composite
def record(draw: st.DrawFn) -> RowRecord:
    """A row with any of its columns missing."""
    n, side, source = draw(st.integers(1, 9)), draw(st.integers(0, 3)), draw(st.text(max_size=8))
    codes = np.full((n, side, side), draw(st.integers(0, 59_000)))
    numbers = st.lists(st.integers(-5, 5), min_size=n, max_size=n)
    return RowRecord(
        row_id=row_id(source, 0, 0),
        source=source,
        run=0,
        view=0,
        kind=ids.KIND_VIDEO,
        n_frames=n,
        grid_h=side,
        grid_w=side,
        tokens=ids.to_ids(codes, ids.KIND_VIDEO, np.dtype(draw(st.sampled_from(["uint16", "uint32"])))),
        pixels=draw(st.none() | st.just(bytes(n * 3 * SIDE * SIDE))),
        label=draw(st.none() | st.integers(-5, 5)),
        frame0=draw(st.integers(0, 2**40)),
        frame_step=draw(st.integers(0, 9)),
        frame_index=draw(st.none() | numbers.map(lambda values: np.array(values, np.int32))),
        pts_us=draw(st.none() | st.integers(-(2**40), 2**40)),
        dt_us=None,
        pts_list_us=draw(st.none() | numbers.map(lambda values: np.array(values, np.int64))),
        crop=(0, 0, 8, 8),
        flags=0,
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(record(), min_size=1, max_size=6))
def test_whatever_the_writer_writes_is_let_through(tmp_path: Path, rows: list[RowRecord]) -> None:
    dtype = rows[0].tokens.dtype
    path = tmp_path / "shard.arrow"
    writer = ShardWriter(path, dtype, FACTS)
    for row in rows:
        writer.write(RowRecord(**{**vars(row), "tokens": row.tokens.astype(dtype)}))
    writer.close()
    assert check(path.read_bytes()) == len(rows) == len(rows_of(path.read_bytes(), tmp_path))


def test_no_number_in_the_structure_can_be_changed_unnoticed(shard: bytes, tmp_path: Path) -> None:
    """Every aligned number of a batch's message and of the footer, several ways: refused, or rows are as written. The
    footer may name fewer batches; the manifest counts them."""
    true = rows_of(shard, tmp_path)
    block = structure(shard).block(0)
    footer = struct.unpack_from("<i", shard, len(shard) - 10)[0]
    spans = ((block.offset, block.message), (len(shard) - 10 - footer, footer + 10))
    refused = 0
    for start, length in spans:
        for place in range(start, start + length - 8, 8):
            for value in (-1, 1 << 62):
                changed = shard[:place] + struct.pack("<q", value) + shard[place + 8 :]
                try:
                    check(changed)
                    assert all(row in true for row in rows_of(changed, tmp_path))
                except (ValueError, DamagedShard):
                    refused += 1
    assert refused > 300


def test_a_buffer_may_not_claim_more_than_its_column_needs(shard: bytes) -> None:
    found = structure(shard)
    block = found.block(0)
    body = block.offset + block.message
    refused = 0
    for place in range(body, body + block.body, 8):  # Arrow puts the length at the beginning of a buffer
        claimed = struct.unpack_from("<q", shard, place)[0]
        if not 0 < claimed < 4096:
            continue
        for more in (claimed + 64, 1 << 40, -2):
            try:
                check(shard[:place] + struct.pack("<q", more) + shard[place + 8 :])
            except ValueError:
                refused += 1
    assert refused >= 3 * 20, "20 columns have values"


def rewritten(data: bytes, change: Callable[[pa.Table], pa.Table], codec: str = "zstd", key: str = "xxh3") -> bytes:
    """The same shard written by Arrow itself, changed."""
    reader = pa.ipc.open_file(pa.BufferReader(data))
    tables = [change(pa.Table.from_batches([reader.get_batch(0)]))]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, tables[0].schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        for table in tables:
            writer.write_batch(table.to_batches()[0], custom_metadata={key: "0" * 32})
    return sink.getvalue().to_pybytes()


def recast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    """With one column of another type."""
    i = table.schema.get_field_index(name)
    values = pa.nulls(len(table), kind) if pa.types.is_nested(kind) else table.column(i).cast(kind)
    return table.set_column(i, table.schema.field(i).with_type(kind), values)


def with_metadata(table: pa.Table, name: str, metadata: dict[str, str]) -> pa.Table:
    """With metadata on one column."""
    i = table.schema.get_field_index(name)
    return table.set_column(i, table.schema.field(i).with_metadata(metadata), table.column(i))


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("dictionaries", lambda table: recast(table, "source", pa.dictionary(pa.int32(), pa.string()))),
        ("columns", lambda table: recast(table, "run", pa.int32())),
        ("columns", lambda table: recast(table, "tokens", pa.large_list(pa.uint8()))),
        ("columns", lambda table: recast(table, "crop", pa.list_(pa.int32(), 5))),
        ("parts where", lambda table: recast(table, "frame_index", pa.list_(pa.list_(pa.int32())))),
        ("columns", lambda table: table.drop_columns(["view"])),
        ("columns", lambda table: table.select(table.column_names[::-1])),
        ("a type of its own", lambda table: with_metadata(table, "label", {"ARROW:extension:name": "evil"})),
        ("2 parts", lambda table: table.replace_schema_metadata({"toto": "{}", "more": "x"})),
        ("metadata of toto", lambda table: table.replace_schema_metadata({})),
        ("no JSON object", lambda table: table.replace_schema_metadata({"toto": "[]"})),
        ("too deep", lambda table: table.replace_schema_metadata({"toto": "[" * 100_000})),
        ("bytes of metadata", lambda table: table.replace_schema_metadata({"toto": " " * (2 << 20)})),
    ],
)
def test_another_schema_is_refused(why: str, change: Any, shard: bytes, tmp_path: Path) -> None:
    with pytest.raises(DamagedShard, match=why):
        rows_of(rewritten(shard, change), tmp_path)


def test_other_codecs_and_batches_without_a_hash_are_refused(shard: bytes, tmp_path: Path) -> None:
    for why, changed in (
        ("something else than zstd", rewritten(shard, lambda table: table, "lz4")),
        ("without its hash", rewritten(shard, lambda table: table, key="other")),
        ("other values", rewritten(shard, lambda table: table)),
    ):
        with pytest.raises(DamagedShard, match=why):
            rows_of(changed, tmp_path)


def test_rows_that_break_the_rules_are_not_handed_out(shard: bytes, tmp_path: Path) -> None:
    """Also where every hash agrees."""
    with ShardWriterOf(shard, tmp_path) as write:
        for column, value, why in (
            ("n_frames", 3, "number of ids"),
            ("kind", 2, "neither a video nor an image"),
            ("row_id", bytes(16), "row_id"),
            ("frame_index", np.zeros(1, np.int32), "frame_index"),
            ("pixels", bytes(7), "pixels"),
        ):
            with pytest.raises(DamagedShard, match=why):
                rows_of(write(column, value), tmp_path)


class ShardWriterOf:
    """Writes the first row of a shard again, with one column changed."""

    def __init__(self, data: bytes, folder: Path) -> None:
        self._path = folder / "source.arrow"
        self._path.write_bytes(data)
        self._folder = folder

    def __enter__(self) -> Callable[[str, Any], bytes]:
        with ShardReader(self._path, "x") as reader:
            self._row, self._facts = Batch(reader.batch(0)).record(0), reader.metadata
        return self._write

    def __exit__(self, *_: object) -> None:
        self._path.unlink()

    def _write(self, column: str, value: Any) -> bytes:
        path = self._folder / "changed.arrow"
        writer = ShardWriter(path, self._row.tokens.dtype, self._facts)
        writer.write(RowRecord(**{**vars(self._row), column: value}))
        writer.close()
        return path.read_bytes()


def test_every_table_of_a_dataset_reads_back_the_same(world: Path) -> None:
    for name in files_of(world):
        if name.endswith(".parquet"):
            assert read_parquet((world / name).read_bytes()).equals(pq.read_table(world / name, use_threads=False))


def test_strings_that_a_dictionary_might_repeat_too_often_are_measured_and_read_back() -> None:
    """Each of ten columns fits if its longest strings are taken for all; all ten do not."""
    long = [f"{i:0100}" for i in range(100)]
    table = pa.table({f"s{k}": [long[i % 100] for i in range(20_000)] for k in range(10)} | {"n": range(20_000)})
    data = parquet_bytes(table)
    assert 0 < len(strings_to_measure(data)) < 10
    assert read_parquet(data).equals(table)


def test_a_table_may_not_become_too_large() -> None:
    """3 KB that would be 100 GB."""
    strings = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 1_000_000]))
    bomb = parquet_bytes(pa.table({"s": strings}))
    assert len(bomb) < 4000
    with pytest.raises(pa.ArrowInvalid, match="more than"):
        read_parquet(bomb)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_bytes_of_no_table_are_refused(data: bytes, length: int) -> None:
    for file in (data, b"PAR1" + data + length.to_bytes(4, "little") + b"PAR1"):
        with pytest.raises(pa.ArrowInvalid):
            read_parquet(file)


def test_tables_have_the_columns_that_they_must_have(world: Path) -> None:
    tables = [read_parquet(file.read_bytes()) for file in sorted((world / "sources").iterdir())]
    table = next(table for table in tables if "video" in table["kind"].to_pylist())
    data = parquet_bytes(table)
    assert results_table(data, "sources/x").equals(table)
    rows, runs, rate = map(table.schema.get_field_index, ("rows", "run_lengths", "rate"))
    holes = pa.array([[None]] * len(table), pa.list_(pa.uint16()))
    for changed in (
        table.drop_columns(["key"]),
        table.set_column(rows, pa.field("rows", pa.int64()), table["rows"]),
        table.set_column(rows, table.schema.field(rows), pa.array([-1] * len(table))),
        table.set_column(rows, table.schema.field(rows), pa.array([1 << 62] * len(table))),
        table.set_column(runs, table.schema.field(runs), pa.array([[]] * len(table), pa.list_(pa.uint16()))),
        table.set_column(runs, table.schema.field(runs), holes),
        *(
            table.set_column(rate, table.schema.field(rate), pa.array([claim] * len(table)))
            for claim in (0.0, -25.0, math.nan, math.inf, 1e5)
        ),
    ):
        with pytest.raises(UserError, match="sources/x: not a table that toto wrote"):
            results_table(parquet_bytes(changed), "sources/x")
    with pytest.raises(pa.ArrowInvalid, match="columns"):
        read_parquet(data, schema=MANIFEST_SCHEMA)
    assert read_parquet(data, ["key"], SOURCES_SCHEMA).column_names == ["key"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rows", 1 << 62),
        ("rows", -1),
        ("bytes", -1),
        ("path", None),
        ("images", 99),
        ("batch_rows", []),
        ("batch_rows", [0]),
        ("batch_rows", [1 << 31]),
        ("runs_by_length", [(1, 1)]),
        ("runs_by_length", [(0, 4)]),
        ("runs_by_length", [(4, 1 << 63), (5, 1 << 63)]),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(column: str, value: Any, world: Path) -> None:
    path = next(path for path in (world / "manifest").iterdir() if path.suffix == ".parquet")
    units = pq.read_table(path, use_threads=False).to_pylist()
    assert check_manifest(pa.Table.from_pylist(units, MANIFEST_SCHEMA), "m").num_rows == len(units)
    units[0][column] = value
    with pytest.raises(UserError, match="m: no manifest that toto wrote"):
        check_manifest(pa.Table.from_pylist(units, MANIFEST_SCHEMA), "m")


@pytest.mark.parametrize(
    ("table", "column", "values"),
    [
        ("labels", "source", pa.array([[True]], pa.list_(pa.bool_()))),
        ("labels", "source", pa.array([None], pa.string())),
        ("labels", "label", pa.array([2**40], pa.int64())),
        ("labels", "label", None),
        ("classes", "name", pa.array([b"x"])),
    ],
)
def test_annotations_of_other_columns_are_refused(
    world: Path, tmp_path: Path, table: str, column: str, values: pa.Array | None
) -> None:
    name = next(name for name in files_of(world) if name.startswith(f"annotations/{table}"))
    changed = pq.read_table(world / name, use_threads=False)
    at = changed.schema.get_field_index(column)
    changed = changed.remove_column(at)
    if values is not None:
        changed = changed.slice(0, 1).add_column(at, column, values)
    root = with_file(world, tmp_path / "changed", name, parquet_bytes(changed), True)
    with pytest.raises(UserError, match=f"{table}-.*: no table of {table} that toto wrote .* column {column}"):
        Dataset(root).annotations(table)
    assert any("that toto wrote" in line for line in verify(open_store(root)).problems)


def test_what_the_fuzzer_once_found_stays_found(world: Path, tmp_path: Path) -> None:
    """Each kept file in the place of one of its kind; with stale hashes, and with hashes that agree."""
    names = files_of(world)
    target = Target(world)
    kept = sorted(path for path in KEPT.iterdir() if path.name != "README.md")
    try:
        for path in kept:
            kind = (
                path.stem.partition("-")[2]
                .replace("dataset", "dataset.json")
                .replace("quarantine", "quarantine.parquet")
            )
            name = next(name for name in names if kind_of(name) == kind and name.endswith(path.suffix))
            for fixed in (False, True):
                changed = with_file(world, tmp_path / "changed", name, path.read_bytes(), fixed)
                assert target.read(changed, fixed, listed=not fixed) == "", path.name
        assert target.read(world, fixed=False, listed=False) == "", "the dataset itself reads back"
    finally:
        target.end()
    assert sum(path.stat().st_size for path in KEPT.iterdir()) < 200_000
    assert len(Dataset(world)) > 0
