"""Ego4D: videos or clips by their uid, from wherever the download tool put them, with what ego4d.json knows of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from listings import dataset, keys, refusal, tree

from toto.errors import UsageError
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
CLIP = "dddddddd-0000-4000-8000-000000000000"


def official() -> dict[str, Any]:
    """ego4d.json of two videos and a clip, with the keys of the published schema."""
    metadata = {
        "fps": 30.0, "num_frames": 14460, "video_codec": "vp9", "display_resolution_width": 1920,
        "display_resolution_height": 1440, "sample_resolution_width": None, "mp4_duration_sec": 482.0,
    }  # fmt: skip
    first = {
        "video_uid": A, "duration_sec": 482.0, "scenarios": ["Cooking", "Household management"],
        "video_metadata": metadata, "split_em": "train", "split_av": None, "split_fho": "multi", "s3_path": "s3://x",
        "is_stereo": False, "video_components": [], "has_redacted_regions": True,
        "redacted_intervals": [{"start_sec": 1.5, "end_sec": 4, "start_frame": 45, "end_frame": 120}],
    }  # fmt: skip
    clip = {
        "clip_uid": CLIP, "video_uid": A, "video_start_sec": 10.0, "video_end_sec": 310.0, "video_start_frame": 300,
        "clip_metadata": {"fps": 30.0, "num_frames": 9000, "display_resolution_width": 1440},
    }  # fmt: skip
    return {"date": "2023", "version": "2.0", "videos": [first, {"video_uid": B}], "clips": [clip]}


def ego4d(root: Path, *videos: str, manifest: Any = None) -> Path:
    tree(root, *videos)
    return tree(root, **{"ego4d.json": json.dumps(manifest or official())})


@pytest.mark.parametrize("inside", ["", "v2", "v2/full_scale"])
def test_root_may_be_the_download_a_version_or_the_videos_folder(tmp_path: Path, inside: str) -> None:
    ego4d(tmp_path / "v2", f"full_scale/{A}.mp4", f"full_scale/{B}.mp4", "annotations/fho_main.json")
    listing = list_sources(dataset(tmp_path / inside, "ego4d"))
    assert [(s.key, s.split, s.label, s.size > 0) for s in listing.sources] == [
        (A, "train", None, True), (B, "train", None, True),
    ]  # fmt: skip
    assert listing.annotations["videos"]["frames"].to_pylist() == [14460, None]


def test_tables_have_splits_scenarios_and_redacted_intervals(tmp_path: Path) -> None:
    tables = list_sources(dataset(ego4d(tmp_path, f"full_scale/{A}.mp4"), "ego4d")).annotations
    rows = tables["videos"].to_pylist()
    assert rows[0] == {
        "source": A, "video_uid": A, "start_s": None, "end_s": None, "duration_s": 482.0, "fps": 30.0,
        "frames": 14460, "width": 1920, "height": 1440,
        "split_em": "train", "split_av": None, "split_fho": "multi", "is_stereo": False,
    }  # fmt: skip
    assert rows[1]["video_uid"] == B and rows[1]["fps"] is None
    assert tables["scenarios"].to_pylist() == [
        {"source": A, "scenario": "Cooking"}, {"source": A, "scenario": "Household management"},
    ]  # fmt: skip
    assert tables["redacted"].to_pylist() == [{"source": A, "start_s": 1.5, "end_s": 4.0}]


def test_small_rendition_counts_before_full_scale_before_clips_unless_one_is_named(tmp_path: Path) -> None:
    videos = (f"full_scale/{A}.mp4", f"video_540ss/{A}.mp4", f"clips/{CLIP}.mp4")
    root = ego4d(tmp_path, *videos)
    by_default = list_sources(dataset(root, "ego4d"))
    assert by_default.sources[0].uri == f"{root}/video_540ss/{A}.mp4"
    assert by_default.ignored["(of another variant)"] == 2
    full = list_sources(dataset(root, "ego4d", variant="full_scale"))
    assert (full.sources[0].key, full.sources[0].uri) == (A, f"{root}/full_scale/{A}.mp4")
    clips = list_sources(dataset(root, "ego4d", variant="clips"))
    assert keys(clips) == [CLIP]
    row = clips.annotations["videos"].to_pylist()[0]
    assert (row["video_uid"], row["start_s"], row["duration_s"], row["frames"]) == (A, 10.0, 300.0, 9000)
    assert row["split_fho"] == "multi" and clips.annotations["redacted"]["source"].to_pylist() == [CLIP]


def test_newer_version_counts_before_the_older_one(tmp_path: Path) -> None:
    tree(tmp_path, *(f"{version}/full_scale/{A}.mp4" for version in ("v1", "v2", "v2_1")), f"v1/full_scale/{B}.mp4")
    ego4d(tmp_path / "v2_1")
    tree(tmp_path / "v2", **{"ego4d.json": json.dumps({"videos": [{"video_uid": C}]})})
    listing = list_sources(dataset(tmp_path, "ego4d"))
    assert [s.uri for s in listing.sources] == [
        f"{tmp_path}/v2_1/full_scale/{A}.mp4", f"{tmp_path}/v1/full_scale/{B}.mp4",
    ]  # fmt: skip
    assert listing.ignored["(another copy of a listed file)"] == 2


def test_listed_video_that_is_not_there_is_missing_and_others_are_counted(tmp_path: Path) -> None:
    listing = list_sources(dataset(ego4d(tmp_path, f"full_scale/{B}.mp4", f"full_scale/{C}.mp4"), "ego4d"))
    assert [(s.key, s.size == MISSING_SIZE) for s in listing.sources] == [(A, True), (B, False)]
    assert listing.ignored == {".json": 1, "(in no official list)": 1}


def test_manifest_csv_serves_where_there_is_no_ego4d_json(tmp_path: Path) -> None:
    tree(tmp_path, f"full_scale/{A}.mp4", f"full_scale/{C}.mp4")
    rows = f"video_uid,duration_sec,canonical_s3_location\n{A},482.5,s3://x/{A}\n{B},,s3://x\n../x,1,s3://x\n"
    tree(tmp_path / "full_scale", **{"manifest.csv": rows})
    for root in (tmp_path, tmp_path / "full_scale"):
        listing = list_sources(dataset(root, "ego4d"))
        assert keys(listing) == [A, B] and listing.annotations["videos"]["duration_s"].to_pylist() == [482.5, None]
        assert listing.ignored == {
            ".csv": 1, "(in no official list)": 1, "(entry of a list without a uid)": 1,
        }  # fmt: skip


def test_folder_of_videos_without_any_list_is_taken_and_a_warning_says_where_to_get_it(tmp_path: Path) -> None:
    tree(tmp_path, f"full_scale/{A}.mp4", f"full_scale/more/{B}.mp4")
    listing = list_sources(dataset(tmp_path / "full_scale", "ego4d", homepage="https://example.org"))
    assert keys(listing) == [A, B] and listing.ignored == {}
    assert listing.warnings == (
        f"datasets.mine: no list for the videos (ego4d.json, manifest.csv, looked for in {tmp_path} and its "
        "annotations/): every video here is taken (2); get it from https://example.org",
    )
    assert listing.annotations["videos"]["video_uid"].to_pylist() == [A, B]


def test_annotations_may_name_a_file_of_uids(tmp_path: Path) -> None:
    uids = tree(tmp_path / "lists", **{"uids.txt": f"{B}\n{C}\n"}) / "uids.txt"
    root = ego4d(tmp_path / "ego4d", f"full_scale/{A}.mp4", f"full_scale/{B}.mp4")
    listing = list_sources(dataset(root, "ego4d", annotations=str(uids)))
    assert [(s.key, s.size > 0) for s in listing.sources] == [(B, True), (C, False)]
    assert listing.ignored["(not among the uids of `annotations`)"] == 1
    assert listing.ignored["(in no official list)"] == 1


def test_unknown_or_absent_variants_are_usage_errors(tmp_path: Path) -> None:
    root = ego4d(tmp_path, f"clips/{CLIP}.mp4")
    assert "did you mean 'full_scale'" in refusal(dataset(root, "ego4d", variant="fullscale"), UsageError)
    message = refusal(dataset(root, "ego4d", variant="full_scale"), UsageError)
    assert "full_scale is not in" in message and "there is clips" in message


@pytest.mark.parametrize("text", ["{", "[]", '{"videos": 3}', "[" * 100_000])
def test_damaged_ego4d_json_is_one_error(tmp_path: Path, text: str) -> None:
    tree(tmp_path, f"full_scale/{A}.mp4", **{"ego4d.json": text})
    assert "ego4d.json" in refusal(dataset(tmp_path, "ego4d"))


def test_odd_values_in_ego4d_json_become_null(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "video_uid": A,
        "duration_sec": "long",
        "scenarios": None,
        "video_metadata": [],
        "split_em": 3,
    }
    manifest = {"videos": [odd | {"redacted_intervals": [3]}, 7, {"video_uid": "../../x"}], "clips": None}
    listing = list_sources(dataset(ego4d(tmp_path, f"full_scale/{A}.mp4", manifest=manifest), "ego4d"))
    row = listing.annotations["videos"].to_pylist()[0]
    assert (row["duration_s"], row["split_em"], set(listing.annotations)) == (None, None, {"videos"})
    assert keys(listing) == [A] and listing.ignored["(entry of a list without a uid)"] == 2


def test_root_without_videos_says_where_people_get_them(tmp_path: Path) -> None:
    config = dataset(tree(tmp_path, "a.txt"), "ego4d", homepage="https://ego4d-data.org")
    assert "get it from https://ego4d-data.org" in refusal(config)
    assert "of 2 videos in the lists, none" in refusal(dataset(ego4d(tmp_path / "x", "full_scale/y.mp4"), "ego4d"))


def test_real_uids_choose_videos(media: Path, tmp_path: Path) -> None:
    uids = media / "annotations" / "ego4d" / "moments_mini_train_uids.csv"
    tree(tmp_path, f"video_540ss/{uids.read_text().split()[0]}.mp4")
    listing = list_sources(dataset(tmp_path, "ego4d", annotations=str(uids)))
    assert len(listing.sources) == len(set(uids.read_text().split()))
    assert sum(source.size > 0 for source in listing.sources) == 1
