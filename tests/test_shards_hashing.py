"""The content hash: identity of values, whatever file or batch they lie in. docs/format.md publishes the vectors."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toto.shards.hashing import ContentHasher, canonical_json, content_hash, json_sha256

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("label", pa.int32()),
        ("data", pa.large_binary()),
        ("ids", pa.large_list(pa.uint16())),
        ("steps", pa.list_(pa.int32())),
        ("box", pa.list_(pa.int32(), 4)),
        ("key", pa.binary(4)),
        ("seconds", pa.float64()),
        ("good", pa.bool_()),
    ]
)
ROW = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(max_size=5),
        "label": st.none() | st.integers(-(2**31), 2**31 - 1),
        "data": st.none() | st.binary(max_size=6),
        "ids": st.lists(st.integers(0, 65535), max_size=5),
        "steps": st.none() | st.lists(st.integers(-5, 5), max_size=3),
        "box": st.lists(st.integers(0, 9), min_size=4, max_size=4),
        "key": st.binary(min_size=4, max_size=4),
        "seconds": st.none() | st.floats(allow_nan=False),
        "good": st.none() | st.booleans(),
    }
)


@settings(max_examples=40)
@given(st.lists(ROW, max_size=12), st.integers(1, 5), st.sampled_from([None, "lz4", "zstd"]))
def test_the_hash_does_not_depend_on_batches_or_compression(rows: list, size: int, codec: str | None) -> None:
    table = pa.Table.from_pylist(rows, SCHEMA)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=size)
    hasher = ContentHasher(SCHEMA)
    hasher.update(pa.ipc.open_file(sink.getvalue()).read_all())
    assert hasher.hexdigest() == content_hash(table)


@settings(max_examples=40)
@given(st.lists(ROW, min_size=2, max_size=8), st.data())
def test_a_slice_hashes_like_a_copy(rows: list, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    whole = pa.RecordBatch.from_pylist(rows, SCHEMA)
    assert content_hash(whole.slice(start, stop - start)) == content_hash(
        pa.RecordBatch.from_pylist(rows[start:stop], SCHEMA)
    )


@settings(max_examples=40)
@given(st.lists(ROW, min_size=1, max_size=4), st.lists(ROW, min_size=1, max_size=4))
def test_other_values_have_another_hash(a: list, b: list) -> None:
    same = content_hash(pa.Table.from_pylist(a, SCHEMA)) == content_hash(pa.Table.from_pylist(b, SCHEMA))
    assert same == _equal(a, b)


def test_a_null_is_neither_zero_nor_empty() -> None:
    for kind, empty in ((pa.int32(), 0), (pa.string(), ""), (pa.list_(pa.int32()), [])):
        schema = pa.schema([("x", kind)])
        null, zero = (pa.Table.from_pylist([{"x": value}], schema) for value in (None, empty))
        assert content_hash(null) != content_hash(zero)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (pa.table({"a": pa.array([1, 2, 3], pa.int32())}), "9e6ef54cf245cb36131e2dafaecf61a6"),
        (pa.table({"s": pa.array(["x", None, ""], pa.string())}), "3fd92f22189fd6ea9c6a906062cb9273"),
        (
            pa.table({"t": pa.array([[1, 7, 2], []], pa.large_list(pa.uint16()))}),
            "63edde36354b4129f4477bc3aa917605",
        ),
    ],
)
def test_published_vectors(table: pa.Table, expected: str, root) -> None:
    assert content_hash(table) == expected
    assert expected in (root / "docs" / "format.md").read_text()


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.string()),
        pa.struct([("x", pa.int32())]),
        pa.list_(pa.list_(pa.int8())),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.decimal128(9),
        pa.timestamp("us"),
        pa.null(),
    ],
)
def test_a_type_that_the_format_does_not_know_has_no_hash(kind: pa.DataType) -> None:
    with pytest.raises(ValueError, match="column odd: .* has no content hash"):
        content_hash(pa.table({"odd": pa.array([], kind)}))


@pytest.mark.parametrize(("kind", "large"), [(pa.string(), pa.large_string()), (pa.binary(), pa.large_binary())])
def test_how_long_offsets_are_is_not_hashed(kind: pa.DataType, large: pa.DataType) -> None:
    for values in (["x", None, "", "yz"], ["a", "b"], [None]):
        short = pa.table({"s": pa.array(values).cast(kind)})
        assert content_hash(short.cast(pa.schema([("s", large)]))) == content_hash(short)
        assert content_hash(short.slice(1).cast(pa.schema([("s", large)]))) == content_hash(short.slice(1))


def test_json_is_hashed_in_one_spelling() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()
    assert json_sha256({"a": 1, "b": 2}) == json_sha256({"b": 2, "a": 1})


def _equal(a: list, b: list) -> bool:
    def plain(rows: list) -> list:
        return [
            [(k, np.float64(v).tobytes() if k == "seconds" and v is not None else v) for k, v in r.items()]
            for r in rows
        ]

    return plain(a) == plain(b)
