"""Rows, windows, labels and annotations of a real dataset, against the videos that it was made from."""

import os
import pickle
import re
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from clips import tokenize, write_image, write_video
from hypothesis import given
from hypothesis import strategies as st
from token_world import Image, Video, moving_videos, write_tokens

import toto
from toto import Dataset
from toto.errors import UserError
from toto.shards import ids
from toto.shards.manifest import MANIFEST_SCHEMA
from toto.shards.row import cut_window
from toto.shards.shard_file import LocalFile
from toto.shards.snapshot import parse_snapshot, snapshot_bytes
from toto.shards.unit_table import UnitTable
from toto.tokenizers import load

FRAMES = {"a/long.mp4": 140, "a/short.mp4": 20, "b/tiny.mp4": 3}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, frames) in enumerate(FRAMES.items()):
        write_video(folder / name, frames, (48, 32), seed)
    write_image(folder / "b" / "still.png", (64, 48))
    return folder


@pytest.fixture(scope="module")
def dataset(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("dataset") / "set"
    sets = ("labels=folders", "keep_pixels=24", "crop=center", "run_frames=64")
    done = tokenize(videos, out, *(word for s in sets for word in ("--set", f"datasets.folder.{s}")))
    assert done.returncode == 0, done.stderr
    return Dataset(out)


def test_rows_cover_every_frame_once(dataset: Dataset) -> None:
    assert toto.Dataset is Dataset and len(dataset) == 5
    for name, frames in FRAMES.items():
        rows = dataset.frames(name)
        assert np.concatenate([row.frame_index for row in rows]).tolist() == list(range(frames))
        assert [row.run for row in rows] == list(range(len(rows)))
    assert [row.n_frames for row in dataset.frames("a/long.mp4")] == [64, 76]  # a rest of 12 joins the run before


def test_batches_hold_the_rows_as_arrays(dataset: Dataset) -> None:
    rows = iter(dataset.rows())
    for shard, number, batch in dataset.batches():
        ends = dataset.batch_ends(shard)
        assert batch.rows == np.diff([0, *ends])[number] and len(batch.starts) == batch.rows + 1
        same = dataset.shard_batch(shard, number)
        assert (same.tokens == batch.tokens).all() and same.sources == batch.sources
        for i in range(batch.rows):
            row = next(rows)
            values = (batch.sources[i], batch.run[i], batch.view[i], batch.kind[i], batch.n_frames[i], batch.grid_h[i])
            assert values == (row.source, row.run, row.view, row.kind, row.n_frames, row.grid_h)
            assert (batch.tokens[batch.starts[i] : batch.starts[i + 1]] == row.tokens).all()
            assert batch.record(i).row_id == row.row_id and row.record.label == row.label
    assert next(rows, None) is None
    assert [place[:2] for place in dataset.batches(0)] == [(0, i) for i in range(len(dataset.batch_ends(0)))]
    with pytest.raises(AttributeError, match="a row has no 'height'"):
        _ = dataset.row(0).height


def test_a_dataset_of_a_later_format_names_the_release_that_reads_it(dataset: Dataset) -> None:
    value = dataset.info | {"format_version": 2, "toto_version": "0.9.1"}
    with pytest.raises(
        UserError, match=r"format version 2; this toto reads version 1: pip install 'toto-video>=0\.9\.1'"
    ):
        parse_snapshot(snapshot_bytes(value), "here")
    with pytest.raises(UserError, match="reads version 1: pip install --upgrade toto-video$"):
        parse_snapshot(snapshot_bytes(value | {"toto_version": "1'; rm -r /"}), "here")


def test_row_by_number_is_row_in_order(dataset: Dataset) -> None:
    for i, row in enumerate(dataset.rows()):
        other = dataset.row(i)
        assert other.record.row_id == row.record.row_id and (other.tokens == row.tokens).all()
    assert dataset.row(-1).record.row_id == dataset.row(len(dataset) - 1).record.row_id
    with pytest.raises(IndexError, match="row 5 of 5"):
        dataset.row(5)


def test_ids_are_framed_and_codes_are_what_the_tokenizer_says(dataset: Dataset, videos: Path) -> None:
    tokenizer = load(dataset.tokenizer)
    for row in dataset.rows():
        assert row.tokens.dtype == np.uint16
        assert row.tokens[0] == row.kind == (ids.KIND_IMAGE if row.source.endswith(".png") else ids.KIND_VIDEO)
        assert row.tokens[-1] == ids.END and len(row.tokens) == 2 + row.n_frames * 16
        assert row.codes.shape == (row.n_frames, 4, 4) and row.codes.min() >= 0
        pictures = tokenizer.decode(row.codes)
        assert (tokenizer.encode(pictures) == row.codes).mean() > 0.3  # clipping to 0…255 moves some


def test_pixels_are_the_pictures_of_the_same_frames(dataset: Dataset, videos: Path) -> None:
    (row,) = dataset.frames("a/short.mp4")
    with av.open(str(videos / "a/short.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24")[:, 8:40] for frame in container.decode(video=0)]
    assert row.crop == (8, 0, 32, 32) and row.pixels.shape == (20, 24, 24, 3)
    with pytest.raises(UserError, match="pixels of another side than keep_pixels: 23"):
        replace(row, pixel_side=23).pixels  # noqa: B018
    shrunk = [frame.reshape(4, 8, 4, 8, 3).mean((1, 3)) for frame in frames]
    kept = [pixels.reshape(4, 6, 4, 6, 3).mean((1, 3)) for pixels in row.pixels]
    assert np.abs(np.array(shrunk) - np.array(kept)).mean() < 6
    assert row.pts_us.tolist() == [i * 40_000 for i in range(20)]


@pytest.mark.parametrize("crop", ["full", "squash"])
def test_pixels_keep_the_shape_of_the_crop(crop: str, videos: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "videos" / "wide.mp4", 2, (96, 32))
    write_video(tmp_path / "videos" / "tall.mp4", 2, (32, 80))
    sets = (f"crop={crop}", "keep_pixels=16")
    done = tokenize(
        tmp_path / "videos", tmp_path / "out", *(w for s in sets for w in ("--set", f"datasets.folder.{s}"))
    )
    assert done.returncode == 0, done.stderr
    shapes = {row.source: row.pixels.shape[1:3] for row in Dataset(tmp_path / "out").rows()}
    full = {"tall.mp4": (40, 16), "wide.mp4": (16, 48)}
    assert shapes == (full if crop == "full" else dict.fromkeys(full, (16, 16)))


def test_windows_tile_each_run_or_overlap_and_say_where_they_are_from(dataset: Dataset) -> None:
    for frames, stride, asked in ((16, 1, None), (8, 2, None), (3, 1, None), (64, 1, None), (5, 7, None), (8, 2, 3)):
        span, hop = (frames - 1) * stride + 1, asked or frames * stride
        expected = [
            (row.source, row.run, start)
            for row in dataset.rows()
            if row.kind == ids.KIND_VIDEO
            for start in range(0, row.n_frames - span + 1, hop)
        ]
        assert dataset.windows(frames, stride, asked) == len(expected)
        found = [dataset.window(i, frames, stride, asked) for i in range(len(expected))]
        assert [(w.source, w.row.run, w.start) for w in found] == expected
        for window in found:
            rows = window.row.codes[window.start : window.start + span : stride]
            assert (ids.to_codes(window.tokens, 4, 4) == rows).all()
            assert window.tokens[0] == ids.VIDEO_START and window.tokens[-1] == ids.END
            assert (np.diff(window.frame_index) == stride).all() if frames > 1 else True
            assert window.pts_us[0] == window.frame_index[0] * 40_000
    with pytest.raises(IndexError):
        dataset.window(dataset.windows(16), 16)
    with pytest.raises(ValueError, match="hop 0: all must be at least 1"):
        dataset.windows(16, hop=0)


@given(st.integers(1, 70), st.integers(1, 9))
def test_window_counts_need_no_shard(frames: int, stride: int) -> None:
    lengths = [64, 76, 20, 3]
    span = (frames - 1) * stride + 1
    by_hand = sum(len(range(0, n - span + 1, frames * stride)) for n in lengths)
    unit = dict.fromkeys(MANIFEST_SCHEMA.names, 0) | {"batch_rows": [4], "runs_by_length": [(n, 1) for n in lengths]}
    texts = {field.name: "" for field in MANIFEST_SCHEMA if field.type == pa.string()}
    table = UnitTable(pa.Table.from_pylist([{**unit, **texts}] * 2, MANIFEST_SCHEMA))
    assert table.window_counts(frames, stride, None).tolist() == [by_hand] * 2


def test_a_window_outside_its_row_is_refused(dataset: Dataset) -> None:
    (row,) = dataset.frames("b/tiny.mp4")
    with pytest.raises(IndexError, match="of a row with 3"):
        cut_window(row, 0, 4)


def test_labels_come_from_the_annotations(dataset: Dataset) -> None:
    assert dataset.labels() == {"a/long.mp4": 0, "a/short.mp4": 0, "b/still.png": 1, "b/tiny.mp4": 1}
    assert dataset.annotations("classes").to_pylist() == [{"label": 0, "name": "a"}, {"label": 1, "name": "b"}]
    assert {row.source: row.label for row in dataset.rows()} == dataset.labels()
    with pytest.raises(KeyError, match="there are: classes, labels"):
        dataset.annotations("masks")


def test_splits_sources_and_quarantine(dataset: Dataset) -> None:
    assert dataset.splits == ["all"] and len(Dataset(dataset.store.uri, split="all")) == 5
    assert sorted(dataset.sources()["key"].to_pylist()) == sorted([*FRAMES, "b/still.png"])
    assert dataset.quarantine().num_rows == 0
    with pytest.raises(UserError, match="has no split 'val'; it has: all"):
        Dataset(dataset.store.uri, split="val")
    with pytest.raises(ValueError, match="no rows of source"):
        dataset.frames("c.mp4")


def test_a_dataset_travels_to_another_process(dataset: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.dataset_id == dataset.dataset_id and (copy.row(1).tokens == dataset.row(1).tokens).all()
    row = pickle.loads(pickle.dumps(dataset.row(1)))
    assert row.source == dataset.row(1).source and (row.codes == dataset.row(1).codes).all()


def test_an_older_snapshot_is_opened_by_its_id(dataset: Dataset) -> None:
    assert len(Dataset(dataset.store.uri, id=dataset.dataset_id[:12])) == 5
    with pytest.raises(UserError, match="0 snapshots with id"):
        Dataset(dataset.store.uri, id="ffff")


def test_no_dataset_there_says_how_to_make_one_and_where_the_folder_is_free(tmp_path: Path) -> None:
    begun, taken = tmp_path / "begun" / "plan" / "0001.parquet", tmp_path / "taken" / "notes.txt"
    for file in (begun, taken):
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / "empty").mkdir()
    for name, out in (("empty", True), ("nowhere", True), ("begun", True), ("taken", False)):
        told = f" --out {tmp_path / name}" if out else ""
        with pytest.raises(UserError, match=re.escape(f"`toto-tokenize run DATASET{told}` makes one")):
            Dataset(tmp_path / name)


def test_what_travels_is_the_snapshot_that_was_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_tokens("set", moving_videos(3))
    data = Dataset("set", split="train", cache_bytes=0)
    rows = [row.source for row in data.rows()]
    text = pickle.dumps((data, data.join(Dataset("set"))))
    write_tokens("set", [*moving_videos(3), Video("a/first.mp4", np.zeros((8, 4, 4), int))], unit_sources=1)
    monkeypatch.chdir("/")
    copy, joined = pickle.loads(text)
    assert copy.dataset_id == data.dataset_id and [row.source for row in copy.rows()] == rows
    assert [(mine.source, other.source) for mine, other in joined.rows()] == [(source, source) for source in rows]
    assert len(Dataset(tmp_path / "set")) > 3


def test_an_id_that_names_no_snapshot_or_another_one_is_told(tmp_path: Path) -> None:
    root = write_tokens(tmp_path, moving_videos(1))
    with pytest.raises(UserError, match="0 snapshots with id"):
        Dataset(root, id="0" * 64)
    here = Dataset(root).dataset_id
    (root / "manifest" / f"{'0' * 64}.json").write_bytes((root / "dataset.json").read_bytes())
    with pytest.raises(UserError, match=f"holds the snapshot {here} instead"):
        Dataset(root, id="0" * 64)


def test_results_of_other_rows_than_the_manifest_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = [Video(f"{n}.mp4", np.zeros((n, 2, 2), int)) for n in (5, 7)]
    root = write_tokens(tmp_path, videos, [Image("still.png", np.zeros((2, 2), int))])
    table = Dataset(root).sources()
    longer = pa.array([[9] for _ in range(3)], table.schema.field("run_lengths").type)
    place = table.schema.get_field_index("run_lengths")
    for wrong in (table.slice(1), table.slice(0, 0), table.set_column(place, table.schema.field(place), longer)):
        data = Dataset(root)
        monkeypatch.setattr("toto.shards.dataset.results_table", lambda data, name, wrong=wrong: wrong)
        with pytest.raises(UserError, match=r"sources/.*parquet: tells of other rows than the manifest"):
            data.window(0, 4)


def test_a_shard_that_is_none_of_the_dataset_is_an_index_error(dataset: Dataset) -> None:
    for shard in (-1, 99):
        for ask in (dataset.batch_ends, dataset.row_lengths, lambda i: dataset.shard_batch(i, 0), dataset.batches):
            with pytest.raises(IndexError, match=f"shard {shard} of"):
                list(ask(shard))  # type: ignore[call-overload]


def test_a_file_whose_bytes_come_in_pieces_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shard").write_bytes(bytes(range(100)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, length, at: pread(handle, min(length, 30), at))
    file = LocalFile(tmp_path / "shard")
    assert file.read(3, 97) == bytes(range(3, 100))
    with pytest.raises(ValueError, match="the file ends within bytes 3 … 101"):
        file.read(3, 98)
