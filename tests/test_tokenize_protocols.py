"""Protocols of a dataset: rows hold every frame that the clips show, and the tables of views lead there."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clips import PIXELS, call, killed
from footage import numbered, write
from made import DCT, NO_CODES, config, make, numbers

from toto import Dataset
from toto.errors import UsageError
from toto.shards.parquet import read_parquet
from toto.shards.protocol_views import VIEWS_SCHEMA, view_tables
from toto.shards.protocols import EXAMPLES, parse
from toto.shards.schema import SOURCES_SCHEMA, row_id
from toto.shards.snapshot import snapshot_bytes
from toto.shards.store import open_store
from toto.shards.streaming.windows import stored_cut
from toto.shards.verify import verify
from toto.tokenize.job import make_job

LENGTHS = {"a/short.mov": 10, "a/middle.mov": 70, "b/long.mov": 150}
RATES = {"a/short.mov": 25, "a/middle.mov": 50, "b/long.mov": 20}
NAMES = EXAMPLES[:3]  # the fourth comes by itself
WITH_VIEWS = {"stride": 4, "crop": "three", "protocols": NAMES}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of numbered frames, at three rates."""
    root = tmp_path_factory.mktemp("videos")
    for name, count in LENGTHS.items():
        (root / name).parent.mkdir(exist_ok=True)
        write(root / name, numbered(count), fps=RATES[name])
    return root


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make(videos, tmp_path_factory.mktemp("made") / "set", labels="folders", **WITH_VIEWS)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_clip_read_by_its_positions_shows_the_official_frames(made: Dataset, name: str) -> None:
    rows, protocol = {row.row_id: row for row in made.rows()}, parse(name)
    table = made.protocol_views(name)
    sources = made.sources()
    assert dict(zip(sources["key"].to_pylist(), sources["rate"].to_pylist(), strict=True)) == RATES
    assert table.schema == VIEWS_SCHEMA and table.num_rows == 3 * protocol.clips * protocol.crops
    for view in table.to_pylist():
        count, rate = LENGTHS[view["source"]], RATES[view["source"]]
        row, expected = rows[view["row_id"]], protocol.indices(count, rate)[view["clip"]]
        assert [numbers(row)[place] for place in view["positions"]] == expected.tolist()
        assert row.frame_index[view["positions"]].tolist() == expected.tolist()
        assert (row.source, row.view) == (view["source"], view["view"])
        assert view["view"] == (view["crop"] if protocol.crops == 3 else 1)
        assert view["label"] == made.labels()[view["source"]] and view["protocol"] == name


def test_a_row_holds_the_grid_and_the_clips_frames_each_once(made: Dataset) -> None:
    for row in made.rows():
        count, rate = LENGTHS[row.source], RATES[row.source]
        shown = np.concatenate([parse(name).indices(count, rate).reshape(-1) for name in NAMES])
        wanted = set(shown.tolist()) | set(range(0, count, 4))
        assert row.frame_index.tolist() == sorted(wanted)


def test_rows_of_train_stay_on_the_grid_and_can_be_cut_into_windows(videos: Path, tmp_path: Path) -> None:
    dataset = make(videos, tmp_path / "set", held_out=0.4, **WITH_VIEWS)
    assert dataset.splits == ["train", "val"]
    train, val = (Dataset(tmp_path / "set", split=split) for split in dataset.splits)
    assert all(np.diff(row.frame_index).tolist() == [4] * (row.n_frames - 1) for row in train.rows())
    assert any(row.record.frame_index is not None for row in val.rows())
    assert (train.stored_stride, val.stored_stride, dataset.stored_stride) == (4, None, None)
    assert stored_cut(train, 2, 8, 2).stride == 2
    with pytest.raises(UsageError, match=r"beside every 4th one, for jepa.*split train alone"):
        stored_cut(val, 2, 8, 2)
    assert set(dataset.protocol_views(NAMES[0])["split"].to_pylist()) == {"val"}
    assert set(dataset.protocol_views(EXAMPLES[3])["split"].to_pylist()) == {"train", "val"}
    assert set(train.protocol_views(EXAMPLES[3])["split"].to_pylist()) == {"train"}


def test_protocols_on_the_grid_ask_for_no_frame_more(videos: Path, tmp_path: Path) -> None:
    asked = {"stride": 2, "crop": "three", "protocols": ("videomae-5x3-16f4",)}
    dataset = make(videos, tmp_path / "set", **asked)
    assert dataset.stored_stride == 2 and all(row.record.frame_index is None for row in dataset.rows())
    assert set(dataset.info["files"]["views"]) == {"videomae-5x3-16f4", "single-1x1-16f4"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": "center"}, r"protocols: .*shows 3 crops, datasets\.mine\.crop center"),
        ({"crop": "random"}, r"shows 3 crops, datasets\.mine\.crop random"),
        ({"stride": None, "fps": 5.0}, r"set datasets\.mine\.stride, not fps"),
        ({"run_frames": 64}, r"set datasets\.mine\.run_frames to all"),
        ({"protocols": ("nothing-1x1-1f1",)}, r"datasets\.mine\.protocols: unknown protocol"),
        ({"protocols": (NAMES[0], NAMES[0])}, r"datasets\.mine\.protocols: one stands there twice"),
        ({"protocols": (), "crop": "random", "views": 200, "flips": True}, r"datasets\.mine\.flips: 200 views"),
        ({"layout": "ego4d-sta", "run_frames": 64}, r"datasets\.mine\.run_frames: layout ego4d-sta"),
        ({"layout": "ego4d-sta"}, r"datasets\.mine\.protocols: layout ego4d-sta"),
        ({"protocols": (), "most_frames": 8, "min_frames": 9}, r"most_frames: 8 is below min_frames \(9\)"),
        ({"most_frames": 8}, r"datasets\.mine\.most_frames: it goes with stride or fps alone"),
        ({"protocols": (), "stride": None, "uniform": 4, "most_frames": 8}, r"datasets\.mine\.most_frames: it goes"),
    ],
)
def test_what_does_not_go_together_is_refused_by_the_names_of_the_keys(changes: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_job(config("x", **(WITH_VIEWS | changes)), NO_CODES, "out")


def test_settings_that_are_not_used_leave_no_trace_in_a_job() -> None:
    plain = make_job(config("x"), DCT, "out").settings
    assert (
        not {"flips", "most_frames", "protocols", "moments", "variant", "fold"} & plain.keys() and plain["views"] == 1
    )
    assert make_job(config("x", crop="three", flips=True), DCT, "out").settings["views"] == 6


def test_a_seal_that_is_killed_at_the_views_and_run_again_gives_the_same(videos: Path, tmp_path: Path) -> None:
    sets = [f"root={videos}", "run_frames=all", "crop=three", f"protocols=[{','.join(NAMES)}]", "resolution=32"]
    words = ["run", "folder", "--quiet", "--ray-address", "local", *PIXELS]
    words += [word for s in sets for word in ("--set", f"datasets.folder.{s}")]
    whole = make(videos, tmp_path / "a", resolution=32, **WITH_VIEWS)
    assert killed(call("tokenize", *words, "--out", tmp_path / "b", TOTO_CRASH_AT="after_views"))
    assert not (tmp_path / "b" / "dataset.json").exists() and any((tmp_path / "b" / "views").iterdir())
    assert call("tokenize", *words, "--out", tmp_path / "b").returncode == 0
    again = Dataset(tmp_path / "b")
    assert whole.dataset_id == again.dataset_id and verify(open_store(tmp_path / "b"), deep=True).ok
    assert whole.info["files"]["views"] == again.info["files"]["views"] and len(again.info["files"]["views"]) == 4


def test_an_older_snapshot_keeps_its_views(videos: Path, tmp_path: Path) -> None:
    shutil.copytree(videos / "a", tmp_path / "videos")
    first = make(tmp_path / "videos", tmp_path / "set", **WITH_VIEWS)
    shutil.copy(videos / "b/long.mov", tmp_path / "videos")
    second = make(tmp_path / "videos", tmp_path / "set", **WITH_VIEWS)
    assert second.protocol_views(NAMES[0]).num_rows == 90
    assert Dataset(tmp_path / "set", id=first.dataset_id).protocol_views(NAMES[0]).num_rows == 60


def test_a_snapshot_from_before_there_were_views_opens_and_gets_them(videos: Path, tmp_path: Path) -> None:
    dataset = make(videos, tmp_path / "set", **WITH_VIEWS)
    value = json.loads((tmp_path / "set" / "dataset.json").read_text())
    del value["sha256"], value["files"]["views"]
    for name in ("dataset.json", f"manifest/{dataset.dataset_id}.json"):
        (tmp_path / "set" / name).write_bytes(snapshot_bytes(value))
    shutil.rmtree(tmp_path / "set" / "views")
    old = Dataset(tmp_path / "set")
    assert len(old) == len(dataset) and verify(open_store(tmp_path / "set"), deep=True).ok
    with pytest.raises(KeyError, match="there are: none"):
        old.protocol_views(NAMES[0])
    assert make(videos, tmp_path / "set", **WITH_VIEWS).info["files"]["views"] == dataset.info["files"]["views"]


def test_changed_views_are_found(made: Dataset, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made.store.uri, tmp_path / "copy"))
    path = root / made.info["files"]["views"][NAMES[0]]["path"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert any(path.name in problem for problem in verify(open_store(root)).problems)
    path.unlink()
    assert any("missing" in problem for problem in verify(open_store(root)).problems)


def test_views_of_other_sources_are_found_though_every_hash_is_right(made: Dataset, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made.store.uri, tmp_path / "copy"))
    value = json.loads((root / "dataset.json").read_text())
    del value["sha256"]
    views = value["files"]["views"]
    views[NAMES[0]] = views[NAMES[1]]
    (root / "dataset.json").write_bytes(snapshot_bytes(value))
    assert any("does not follow" in problem for problem in verify(open_store(root), deep=True).problems)


def line(**changes: object) -> pa.Table:
    """Per-source results of one video."""
    known = {"key": "a", "split": "val", "attempt": 0, "kind": "video", "status": "ok", "size": 1, "flags": 0}
    counts = {"errors": 0, "rows": 1, "tokens": 2, "frames_decoded": 8, "frames_kept": 8, "run_lengths": [8]}
    return pa.Table.from_pylist([known | counts | changes], SOURCES_SCHEMA)


def test_a_clip_that_no_row_holds_whole_has_no_positions() -> None:
    settings = {"stride": 1, "crop": "center", "run_frames": "all", "protocols": ["videomae-3x1-4f2"]}
    long = view_tables(settings, line(frames_decoded=20, run_lengths=[12, 8]), {"a": 5})["videomae-3x1-4f2"].to_pylist()
    assert [view["positions"] for view in long] == [[0, 2, 4, 6], None, [0, 2, 4, 6]]
    assert [view["row_id"] for view in long] == [row_id("a", 0, 0), None, row_id("a", 1, 0)]
    assert {view["label"] for view in long} == {5}
    damaged = view_tables(settings, line(frames_decoded=9), {})["videomae-3x1-4f2"]
    liar = view_tables(settings, line(frames_decoded=2**60), {})["videomae-3x1-4f2"]
    assert liar["positions"].null_count == 3
    assert damaged["positions"].null_count == 3, "nine frames decode to eight stored ones in a damaged folder only"


def test_views_are_written_the_same_every_time(made: Dataset) -> None:
    ref = made.info["files"]["views"][NAMES[0]]
    table = read_parquet(made.store.read(ref["path"]))
    again = view_tables(made.info["settings"], made.sources(), made.labels())[NAMES[0]]
    assert again.equals(table) and ref["path"] == f"views/{NAMES[0]}-{ref['sha256'][:8]}.parquet"
