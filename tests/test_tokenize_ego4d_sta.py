"""Ego4D's short-term anticipation: rows hold the frames before their video's moments, and the tables lead to them."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from footage import numbered, write
from made import NO_CODES, config, make, numbers

from toto import Dataset
from toto.config import DatasetConfig
from toto.errors import UsageError, UserError
from toto.shards.hashing import json_sha256
from toto.shards.parquet import read_parquet
from toto.shards.store import open_store
from toto.tokenize.job import make_job
from toto.tokenize.plan import read_plans
from toto.tokenize.retry import retry
from toto.tokenize.run import Options, tokenize
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.ego4d_sta_file import MOMENTS, OBJECTS
from toto.tokenize.units import PlannedSource, cut_units

NOUNS = [{"id": 0, "name": "cup"}, {"id": 7, "name": "knife_(knife, machete)"}]
VERBS = [{"id": 3, "name": "take"}]


def item(video: str, frame: int, number: int = 0, **changes: Any) -> dict[str, Any]:
    """One annotation, of two objects, one of them without area."""
    objects = [
        {"box": [10.5, 20, 60.25, 70], "noun_category_id": 7, "verb_category_id": 3, "time_to_contact": 0.4},
        {"box": [5, 5, 5, 5], "noun_category_id": 0, "verb_category_id": 3, "time_to_contact": 1.25},
    ]
    known = {"uid": f"{video}_{frame:07d}_{number}", "video_uid": video, "frame": frame}
    return (
        known
        | {"clip_uid": f"clip-{video}", "clip_id": 1, "clip_frame": max(0, frame - 20), "objects": objects}
        | changes
    )


def annotations(*items: dict[str, Any], split: str = "val") -> dict[str, Any]:
    videos = {one.get("video_uid") or one["video_id"] for one in items}
    facts = {"fps": 30.0, "frame_width": 1440, "frame_height": 1080, "frame_count": 60}
    info = {"version": "1.0", "split": split, "video_metadata": dict.fromkeys(videos, facts)}
    return {"info": info, "annotations": list(items), "noun_categories": NOUNS, "verb_categories": VERBS}


def without(one: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name not in names}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Videos of 60 numbered frames, a (train), b and c (val), d (test), and clips of b and c that begin at frame 20."""
    for folder in ("full_scale", "clips", "annotations"):
        (tmp_path / folder).mkdir()
    for name in "abcd":
        write(tmp_path / "full_scale" / f"{name}.mov", numbered(60), fps=30)
    for name in "bc":
        frames = list(numbered(60))[20:]
        write(tmp_path / "clips" / f"clip-{name}.mov", frames, fps=30)
    files = {
        "fho_sta_train.json": annotations(item("a", 30), item("a", 33), split="train"),
        "fho_sta_val.json": annotations(item("b", 40), item("b", 58, 1), item("c", 4) | {"clip_frame": 0}),
        "fho_sta_test_unannotated.json": annotations(without(item("d", 20), "objects"), split="test"),
    }
    for name, content in files.items():
        (tmp_path / "annotations" / name).write_text(json.dumps(content))
    return tmp_path


def sta(root: Path, **changes: Any) -> DatasetConfig:
    return config(root, layout="ego4d-sta", **changes)


def test_a_video_with_moments_is_a_source_that_names_the_frames_of_all_of_them(root: Path) -> None:
    listing = list_sources(sta(root))
    assert [(s.key, s.split, s.moments) for s in listing.sources] == [
        ("train/a", "train", tuple(range(15, 34))),
        ("val/b", "val", (*range(25, 41), *range(43, 59))),
        ("val/c", "val", tuple(range(5))),
        ("test/d", "test", tuple(range(5, 21))),
    ]
    assert listing.ignored["(video without moments)"] == 2, "the clips"


def test_a_moments_frames_are_sixteen_in_a_row_that_end_at_it(root: Path) -> None:
    listing = list_sources(sta(root, split=("val",)))
    table = listing.annotations["moments"]
    assert table.schema == MOMENTS
    found = {line["uid"]: line for line in table.to_pylist()}
    assert found["b_0000040_0"]["positions"] == list(range(25, 41))
    assert found["c_0000004_0"]["positions"] == [0] * 12 + [1, 2, 3, 4]
    assert {key: found["b_0000040_0"][key] for key in ("source", "frame", "clip_uid", "clip_frame", "fps")} == {
        "source": "val/b", "frame": 40, "clip_uid": "clip-b", "clip_frame": 20, "fps": 30.0,
    }  # fmt: skip
    assert (found["b_0000040_0"]["frame_width"], found["b_0000040_0"]["frame_height"]) == (1440, 1080)


def test_objects_stay_as_they_are_given_also_without_area_and_test_has_none(root: Path) -> None:
    tables = list_sources(sta(root)).annotations
    assert tables["objects"].schema == OBJECTS and tables["objects"].num_rows == 10
    first, second = (line for line in tables["objects"].to_pylist() if line["uid"] == "b_0000040_0")
    assert (first["box"], first["noun"], first["verb"], first["ttc"]) == (
        [10.5, 20, 60.25, 70],
        7,
        3,
        pytest.approx(0.4),
    )
    assert second["box"] == [5, 5, 5, 5] and "test/d" not in tables["objects"]["source"].to_pylist()
    assert tables["nouns"].to_pylist() == NOUNS and tables["verbs"].to_pylist() == VERBS


def test_video_id_is_read_where_video_uid_is_not_there(root: Path) -> None:
    old = without(item("b", 40), "video_uid") | {"video_id": "b"}
    (root / "annotations" / "fho_sta_val.json").write_text(json.dumps(annotations(old)))
    assert [s.key for s in list_sources(sta(root, split=("val",))).sources] == ["val/b"]


def test_clips_count_frames_in_the_clip(root: Path) -> None:
    listing = list_sources(sta(root, variant="clips", split=("val",)))
    assert [(s.key, s.moments) for s in listing.sources] == [
        ("val/clip-b", (*range(5, 21), *range(23, 39))),
        ("val/clip-c", (0,)),
    ]
    assert set(listing.annotations["moments"]["source"].to_pylist()) == {"val/clip-b", "val/clip-c"}


def test_a_video_that_is_not_there_stays_in_the_listing(root: Path) -> None:
    (root / "full_scale" / "c.mov").unlink()
    found = {source.key: source for source in list_sources(sta(root)).sources}
    assert found["val/c"].size == MISSING_SIZE and found["val/c"].uri.endswith("full_scale/c.mp4")


def test_rows_hold_the_frames_of_the_moments_and_no_others(root: Path, tmp_path: Path) -> None:
    dataset = make(root, tmp_path / "set", layout="ego4d-sta", stride=4)
    settings = dataset.info["settings"]
    assert settings["moments"] is True and settings["stride"] is None and dataset.stored_stride is None
    rows = {row.source: row for row in dataset.rows()}
    for source, row in rows.items():
        assert numbers(row) == row.frame_index.tolist(), source
    assert rows["val/b"].frame_index.tolist() == [*range(25, 41), *range(43, 59)]
    for moment in dataset.annotations("moments").to_pylist():
        places = [rows[moment["source"]].frame_index.tolist().index(i) for i in moment["positions"]]
        assert [numbers(rows[moment["source"]])[place] for place in places] == moment["positions"]
    assert dataset.info["files"]["views"] == {} and dataset.sources()["frames_decoded"].to_pylist() == [60] * 4


@pytest.mark.usefixtures("cache")
def test_videos_are_read_where_they_lie_in_tars(root: Path, tmp_path: Path) -> None:
    loose = make(root, tmp_path / "loose", layout="ego4d-sta")
    with tarfile.open(root / "full_scale.tar", "w") as tar:
        for video in sorted((root / "full_scale").iterdir()):
            tar.add(video, f"./{video.name}")
            video.unlink()
    packed = make(root, tmp_path / "packed", layout="ego4d-sta")
    assert {row.source: numbers(row) for row in packed.rows()} == {row.source: numbers(row) for row in loose.rows()}
    assert packed.dataset_id == loose.dataset_id


def test_a_later_run_over_another_split_keeps_what_is_known(root: Path, tmp_path: Path) -> None:
    make(root, tmp_path / "set", layout="ego4d-sta", split=("train",))
    dataset = make(root, tmp_path / "set", layout="ego4d-sta", split=("test",))
    assert dataset.annotations("moments").num_rows == 3 and dataset.annotations("objects").num_rows == 4
    assert dataset.annotations("nouns").to_pylist() == NOUNS


def test_plans_hold_the_moments_and_new_ones_are_reported(root: Path, tmp_path: Path) -> None:
    asked = sta(root, split=("val",))
    job = make_job(asked, NO_CODES, str(tmp_path / "set"))
    tokenize(asked, job, Options(engine="local", quiet=True))
    planned = {s.key: s for unit in read_plans(open_store(tmp_path / "set")).units.values() for s in unit.sources}
    assert planned["val/c"].moments == (0, 1, 2, 3, 4) and planned["val/c"].estimated_frames == 5
    (root / "annotations" / "fho_sta_val.json").write_text(json.dumps(annotations(item("b", 40), item("c", 9))))
    done = tokenize(asked, job, Options(engine="local", quiet=True))
    assert done.changed == ["val/b", "val/c"] and done.units_done == 0


def moments_without_their_frames(dataset: Dataset) -> list[str]:
    """Moments that point at frames that their source's row does not hold."""
    rows = {row.source: set(row.frame_index.tolist()) for row in dataset.rows()}
    moments = dataset.annotations("moments").to_pylist()
    return [m["uid"] for m in moments if m["source"] in rows and not set(m["positions"]) <= rows[m["source"]]]


def test_annotations_that_change_later_leave_the_tables_with_the_rows(root: Path, tmp_path: Path) -> None:
    before = make(root, tmp_path / "set", layout="ego4d-sta")
    boxes = before.annotations("objects")
    path = root / "annotations" / "fho_sta_val.json"
    path.write_text(json.dumps(annotations(item("b", 45), item("c", 4, objects=[]) | {"clip_frame": 0})))
    after = make(root, tmp_path / "set", layout="ego4d-sta")
    assert moments_without_their_frames(after) == []
    assert sorted(after.annotations("moments")["uid"].to_pylist()) == sorted(
        before.annotations("moments")["uid"].to_pylist()
    ), "b's frames are others, so its moments stay; c's are the same"
    of_c = [line for line in after.annotations("objects").to_pylist() if line["source"] == "val/c"]
    assert of_c == [] and after.annotations("objects").num_rows == boxes.num_rows - 2, (
        "what has its frames is corrected"
    )


def test_a_source_that_is_tried_again_takes_the_moments_of_now_and_others_keep_theirs(
    root: Path, tmp_path: Path
) -> None:
    video = root / "full_scale" / "c.mov"
    video.rename(root / "c.hidden")
    make(root, tmp_path / "set", layout="ego4d-sta", split=("val",))
    (root / "c.hidden").rename(video)
    path = root / "annotations" / "fho_sta_val.json"
    path.write_text(json.dumps(annotations(item("b", 45), item("c", 9), item("c", 33))))
    asked = sta(root, split=("val",))
    done = retry(asked, make_job(asked, NO_CODES, str(tmp_path / "set")), Options(engine="local", quiet=True), None)
    assert done.snapshot.value["quarantine"] == {}
    dataset = Dataset(tmp_path / "set")
    assert moments_without_their_frames(dataset) == []
    found = [(m["source"], m["frame"]) for m in dataset.annotations("moments").to_pylist()]
    assert sorted(found) == [("val/b", 40), ("val/b", 58), ("val/c", 9), ("val/c", 33)]


def test_a_plan_without_moments_has_the_columns_it_always_had(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    write(tmp_path / "videos" / "a.mov", numbered(5))
    dataset = make(tmp_path / "videos", tmp_path / "set")
    (plan,) = dataset.info["files"]["plans"]
    assert "moments" not in read_parquet(dataset.store.read(plan["path"])).column_names


def test_moments_are_part_of_a_units_identity_where_there_are_any() -> None:
    known = {
        "split": "val",
        "kind": "video",
        "label": None,
        "size": 9,
        "mtime_us": 0,
        "etag": "",
        "estimated_frames": 5,
    }
    ids = {next(iter(cut_units([PlannedSource("a", moments=m, **known)], 1, {}))).id for m in (None, (1, 2), (1, 3))}
    assert len(ids) == 3
    (unit,) = cut_units([PlannedSource("a", **known)], 1, {})
    assert unit.id == json_sha256({"sources": [["a", 9]], "settings": {}, "attempt": 0})[:16], "as it always was"


def test_frames_beyond_the_end_are_told_and_a_video_without_any_is_too_short(root: Path, tmp_path: Path) -> None:
    content = annotations(item("b", 70), item("c", 300))
    (root / "annotations" / "fho_sta_val.json").write_text(json.dumps(content))
    dataset = make(root, tmp_path / "set", layout="ego4d-sta", split=("val",))
    found = {line["key"]: line for line in dataset.sources().to_pylist()}
    assert found["val/b"]["frames_kept"] == 5 and "11 of 16 wanted frames" in found["val/b"]["detail"]
    assert (found["val/c"]["status"], found["val/c"]["reason"]) == ("quarantined", "too_short")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ([], "no annotations of short-term anticipation"),
        ({"annotations": [], "info": ["x"]}, "info is no object"),
        ({"annotations": [], "info": {"video_metadata": [1]}}, "video_metadata is no object"),
        ({"annotations": [without(item("b", 1), "video_uid")]}, r"annotation 0: no 'video_id'"),
        ({"annotations": [item("b", 1), item("b", 1)]}, r"annotation 1: a second one with uid 'b_0000001_0'"),
        ({"annotations": [item("b", -1)]}, r"annotation 0: frame -1 is no whole number"),
        ({"annotations": [item("b", 1) | {"frame": 1.5}]}, r"frame 1\.5 is no whole number"),
        ({"annotations": [item("../../etc/passwd", 1)]}, r"video_uid '\.\./\.\./etc/passwd' is no uid"),
        ({"annotations": [item("b", 1, objects=[{"box": [1, 2, 3]}])]}, r"annotation 0: "),
        ({"annotations": [item("b", 1)], "noun_categories": [{"id": "x", "name": "y"}]}, "noun_categories: id 'x'"),
        ({"annotations": [item("b", 1)], "noun_categories": [{"id": 0, "name": "other"}]}, "other noun categories"),
    ],
)
def test_annotations_that_are_not_in_the_format_are_refused_by_name(root: Path, broken: Any, said: str) -> None:
    (root / "annotations" / "fho_sta_val.json").write_text(json.dumps(broken))
    with pytest.raises(UserError, match=said) as failed:
        list_sources(sta(root))
    assert "fho_sta_val.json" in str(failed.value)


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"variant": "half_scale"}, UsageError, r"datasets\.mine\.variant"),
        ({"variant": "video_540ss"}, UserError, "of 4 videos in the annotations, none is in video_540ss/"),
        ({"variant": "video_540ss"}, UserError, r"there is full_scale, clips: set datasets\.mine\.variant to"),
        ({"annotations": "full_scale"}, UserError, "no fho_sta_train.json"),
        ({"annotations": "full_scale"}, UserError, r"^datasets\.mine\.annotations: .*/full_scale: no fho"),
        ({"annotations": "full_scale", "root": "nowhere"}, UserError, r"^datasets\.mine\.root: .*: no such folder"),
        ({"split": ("test",), "annotations": "full_scale"}, UserError, "no fho_sta_test_unannotated.json"),
    ],
)
def test_what_is_not_there_is_named(root: Path, changes: dict[str, Any], kind: type[Exception], said: str) -> None:
    paths = {name: str(root / value) for name, value in changes.items() if name in ("annotations", "root")}
    with pytest.raises(kind, match=said):
        list_sources(replace(sta(root), **changes | paths))


def test_a_split_whose_file_is_not_there_is_named(root: Path) -> None:
    assert list_sources(sta(root)).warnings == ()
    (root / "annotations" / "fho_sta_val.json").unlink()
    (warning,) = list_sources(sta(root)).warnings
    place = root / "annotations"
    assert f"no list for split val (fho_sta_val.json, looked for in {place}): its videos are left out" in warning
    with pytest.raises(UserError, match=r"no fho_sta_val\.json in annotations/, v2/annotations/ or beside the videos"):
        list_sources(sta(root, split=("val",)))


@pytest.mark.parametrize("own", ["", "v2_1", "v2_1/full_scale"])
def test_the_root_may_be_the_download_a_version_or_the_videos_folder(root: Path, tmp_path: Path, own: str) -> None:
    wanted = [(source.key, source.size) for source in list_sources(sta(root)).sources]
    for name in ("full_scale", "clips", "annotations"):
        (tmp_path / "v2_1").mkdir(exist_ok=True)
        (root / name).rename(tmp_path / "v2_1" / name)
    old = tmp_path / "v2" / "annotations"
    old.mkdir(parents=True)
    (old / "fho_sta_val.json").write_text(json.dumps(annotations(item("b", 20))))
    listing = list_sources(sta(tmp_path / own))
    assert [(source.key, source.size) for source in listing.sources] == wanted and listing.warnings == ()


def test_the_variant_that_is_there_is_taken_full_scale_before_others(root: Path) -> None:
    (root / "full_scale").rename(root / "video_540ss")
    listing = list_sources(sta(root))
    assert [s.key for s in listing.sources] == ["train/a", "val/b", "val/c", "test/d"], "not the clips"
    assert all(s.size > 0 and "/video_540ss/" in s.uri for s in listing.sources)
    (root / "full_scale").mkdir()
    (root / "video_540ss" / "a.mov").rename(root / "full_scale" / "a.mov")
    assert [s.size > 0 for s in list_sources(sta(root)).sources] == [True, False, False, False]
