"""Listings and plans as columns: the same sources come back, each key is found, and none costs what an object does."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clips import call, run_arguments, short_error, write_clips
from hypothesis import given, settings
from hypothesis import strategies as st
from listings import dataset
from made import NO_CODES, config

from toto.shards.manifest import final_results
from toto.shards.schema import SOURCES_SCHEMA
from toto.shards.store import open_store
from toto.tokenize import key_index
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import make_job
from toto.tokenize.key_index import KeyIndex
from toto.tokenize.plan import extend_plans
from toto.tokenize.planned import PlannedRows, planned, planned_rows
from toto.tokenize.sources import Source, folder, list_sources, source_table, tar_cache
from toto.tokenize.sources.base import Listing, labels_table
from toto.tokenize.sources.files import File
from toto.tokenize.sources.source_table import SourceTable

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
URIS = st.one_of(
    NAMES,
    st.builds("/videos/{}/{}".format, NAMES, NAMES),
    st.builds("s3://bucket/{}".format, NAMES),
    st.builds("part:{}+{}+512+0123abcd:/tars/{}.tar".format, st.integers(0, 9**9), st.integers(0, 9**9), NAMES),
    st.sampled_from(
        ["/odd/\udcff\udc80.mp4", "/videos/part:1.mp4", "frames:/davis/bear", "part:1+2+3+0123abcd:a b.tar"]
    ),
)
SOURCES = st.lists(
    st.builds(
        Source,
        key=NAMES,
        uri=URIS,
        kind=st.sampled_from(["video", "image"]),
        split=st.sampled_from(["train", "val", "test"]),
        label=st.none() | st.integers(0, 999),
        size=st.integers(-1, 2**40),
        mtime_us=st.integers(0, 2**60),
        etag=NAMES | st.just(""),
        moments=st.none() | st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    ),
    max_size=8,
    unique_by=lambda source: source.key,
)
SPLITS = ("val", "train", "test")


@settings(max_examples=30)
@given(SOURCES, st.slices(8))
def test_sources_come_back_from_their_columns(sources: list[Source], part: slice) -> None:
    table = SourceTable.of(iter(sources))
    assert table == sources and list(table[part]) == sources[part]
    assert [table[i] for i in range(-len(sources), 0)] == sources
    frames = list(range(len(sources)))
    rows = planned_rows(table, frames)
    assert list(rows) == [planned(source, i) for i, source in enumerate(sources)] == list(PlannedRows.of(tuple(rows)))
    assert list(rows[part]) == list(rows)[part]


@settings(max_examples=20)
@given(SOURCES)
def test_columns_are_sorted_as_python_sorts(sources: list[Source]) -> None:
    table = SourceTable.of(sources)
    table.sort(SPLITS)
    assert table == sorted(sources, key=lambda source: (SPLITS.index(source.split), source.key))
    assert table.of_splits(("val", "test")) == [source for source in table if source.split != "train"]


@pytest.mark.parametrize("hashes", [2**64, 3, 1])
def test_every_key_is_found_and_no_other_also_where_hashes_are_shared(
    hashes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = key_index.hashes_of_keys
    monkeypatch.setattr(key_index, "hashes_of_keys", lambda keys: real(keys) % np.uint64(hashes - 1 or 1))
    keys = [f"key-{i}" for i in range(200)]
    index = KeyIndex(pa.chunked_array([keys[:50], keys[50:]], pa.large_string()))
    asked = ["none", *reversed(keys), "key-200"]
    assert index.rows(pa.chunked_array([asked])).tolist() == [-1, *reversed(range(200)), -1]


def test_a_name_that_a_web_server_lists_twice_is_one_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [File("b.mp4", "http://x/b.mp4", 3), File("a b.mp4", "http://x/a%20b.mp4", 3)]
    twice.append(File("a b.mp4", "http://x/a b.mp4", 3))
    monkeypatch.setattr(folder, "each_file", lambda config, suffixes, ignored: iter(twice))
    listing = list_sources(dataset(tmp_path))
    assert [source.uri for source in listing.sources] == ["http://x/a%20b.mp4", "http://x/b.mp4"]
    assert sum(listing.ignored.values()) == 1


def test_a_video_thought_a_little_longer_than_a_frame_is_planned_as_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Estimator, "decoded_frames", lambda self, sources: np.array([1.0, 1.4, 30.0]))
    sources = [Source(f"{i}.mp4", f"{i}.mp4", "video", "all", None, 9) for i in range(3)]
    job = make_job(dataset(tmp_path, uniform=16, keep_pixels=16), NO_CODES, str(tmp_path / "set"))
    assert Estimator(job).kept_frames(sources).tolist() == [1, 16, 16]


def many(count: int) -> Iterator[Source]:
    for i in range(count):
        wnid = f"n{i // 1000:08d}"
        uri = f"part:{i * 120_000}+{i % 9973}+512+0123abcd:/data/imagenet21k/{wnid}.tar"
        yield Source(f"{wnid}/{wnid}_{i}.JPEG", uri, "image", "train", i // 1000, i % 9973, 1_300_000_000_000_000)


def test_a_listed_and_planned_source_takes_less_than_160_bytes() -> None:
    count = 70_000
    before = pa.total_allocated_bytes()
    table = SourceTable.of(many(count))
    table.sort(("train",))
    rows = planned_rows(table, np.ones(count, np.int64))
    assert table.by_key.rows(rows.keys[-5:]).tolist() == list(range(count - 5, count))
    assert (pa.total_allocated_bytes() - before) / count < 160


def test_the_cache_of_tars_is_bounded_and_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "abc":
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            tar.add(__file__, "1.mp4")
    assert len(list_sources(dataset(tmp_path, "webdataset")).sources) == 3
    kept = sorted((tmp_path / "cache" / "toto" / "tars").iterdir())
    for age, path in enumerate(kept):
        os.utime(path, (10**9 - age, 10**9 - age))
    (kept[0].parent / "a folder").mkdir()
    monkeypatch.setattr(tar_cache, "MOST_BYTES", 2 * kept[0].stat().st_size)
    tar_cache.bound()
    assert {path for path in kept[0].parent.iterdir() if path.is_file()} == {*kept[:2]}
    assert len(list_sources(dataset(tmp_path, "webdataset")).sources) == 3


def test_keys_of_more_bytes_than_an_array_of_strings_holds_are_planned_and_labelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = SourceTable.of(Source(f"{i:02d}.png", f"/v/{i:02d}.png", "image", "train", i % 2, 9) for i in range(10))
    table, job = sources.take(np.arange(9, -1, -1)), make_job(config(tmp_path), NO_CODES, str(tmp_path / "set"))
    listing = Listing(table, {"labels": labels_table(table, {0: "even", 1: "odd"})}, {})
    whole = extend_plans(open_store(tmp_path / "set"), job, listing, lambda s: [1] * len(s), None)
    monkeypatch.setattr(source_table, "MOST_STRING_BYTES", 20)
    monkeypatch.setattr(source_table, "AT_ONCE", 3)
    parts = source_table.strings(table.keys)
    assert parts.type == pa.string() and parts.to_pylist() == table.keys.to_pylist()
    assert [len(chunk) for chunk in parts.chunks] == [3, 3, 3, 1]
    assert max(chunk.buffers()[2].size for chunk in parts.chunks) < 40  # Arrow's offsets count from the buffer's start
    listing = Listing(table, {"labels": labels_table(table, {0: "even", 1: "odd"})}, {})
    cut = extend_plans(open_store(tmp_path / "cut"), job, listing, lambda s: [1] * len(s), None)
    assert cut.units == whole.units and cut.annotations == whole.annotations


@settings(max_examples=50)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=5), max_size=4))
def test_of_a_source_tried_several_times_the_highest_attempt_counts(tried: list[list[tuple[str, int]]]) -> None:
    empty = {"split": "train", "kind": "image", "status": "ok", "run_lengths": []}
    empty |= dict.fromkeys(("size", "frames_decoded", "frames_kept", "flags", "errors", "rows", "tokens"), 0)
    lines = [[{**empty, "key": key, "attempt": attempt} for key, attempt in unit] for unit in tried]
    found = final_results([pa.Table.from_pylist(unit, SOURCES_SCHEMA) for unit in lines])
    flat = [pair for unit in tried for pair in unit]
    highest = {key: max(attempt for other, attempt in flat if other == key) for key, _ in flat}
    assert sorted(zip(found["key"].to_pylist(), found["attempt"].to_pylist(), strict=True)) == sorted(highest.items())


def test_what_is_asked_of_retry_in_vain_is_said_before_anything_is_written(tmp_path: Path) -> None:
    videos = write_clips(tmp_path / "videos", 1, 4)
    arguments = run_arguments(videos, tmp_path / "set")
    assert "did you mean 'timeout'" in short_error(call("tokenize", "retry", *arguments, "--reason", "tiemout"), 2)
    assert "nothing is planned" in short_error(call("tokenize", "retry", *arguments), 1)
    assert not (tmp_path / "set").exists()
