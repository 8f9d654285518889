"""Kinetics: every layout and list that people have becomes the same clips, labels and splits."""

import os
import tarfile

import pytest
from listings import dataset, keys, refusal, tree

from toto.tokenize.input_file import open_binary
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE

K400 = """label,youtube_id,time_start,time_end,split,is_cc
"riding a bike",0wR5jVB-WPk,417,427,{split},0
abseiling,-caPS4FHFF8,36,46,{split},0
"arm wrestling",_XOdVQRjxtk,0,10,{split},1
"""
SPACED = ("riding a bike", "abseiling", "arm wrestling")
JOINED = ("riding_a_bike", "abseiling", "arm_wrestling")
STEMS = ("0wR5jVB-WPk_000417_000427", "-caPS4FHFF8_000036_000046", "_XOdVQRjxtk_000000_000010")


def kinetics(root, *videos, **lists):
    """A Kinetics root: videos and, by default, the K400 list of val in annotations/."""
    lists = lists or {"val.csv": K400.format(split="val")}
    tree(root, *videos)
    tree(root / "annotations", **lists)
    return root


@pytest.mark.parametrize(
    "videos",
    [
        pytest.param([f"val/{stem}.mp4" for stem in STEMS], id="cvdf"),
        pytest.param(
            [f"videos/val/{c}/{s}.webm" for c, s in zip(SPACED, STEMS, strict=True)],
            id="classes with spaces",
        ),
        pytest.param(
            [f"val/{c}/{s}.mkv" for c, s in zip(JOINED, STEMS, strict=True)],
            id="classes with underscores",
        ),
        pytest.param([f"videos_val/class/{stem}.mp4" for stem in STEMS], id="mmaction2"),
        pytest.param([f"val_256/class/{stem[:11]}.mp4" for stem in STEMS], id="without times"),
        pytest.param([f"{stem}.mp4" for stem in STEMS], id="no folders"),
    ],
)
def test_kinetics_gives_the_same_keys_and_labels_in_every_layout(tmp_path, videos):
    listing = list_sources(dataset(kinetics(tmp_path, *videos), "kinetics"))
    assert [(s.key, s.split, s.label, s.kind) for s in listing.sources] == [
        ("val/-caPS4FHFF8_000036_000046", "val", 0, "video"),
        ("val/0wR5jVB-WPk_000417_000427", "val", 2, "video"),
        ("val/_XOdVQRjxtk_000000_000010", "val", 1, "video"),
    ]
    assert all(s.size > 0 and os.path.exists(s.uri) for s in listing.sources)
    assert "(in no official list)" not in listing.ignored


def test_kinetics_labels_are_a_table_with_ids_and_times(tmp_path):
    listing = list_sources(dataset(kinetics(tmp_path, f"val/{STEMS[0]}.mp4"), "kinetics"))
    assert listing.annotations["labels"].to_pylist()[1] == {
        "source": "val/0wR5jVB-WPk_000417_000427", "split": "val", "label": 2, "name": "riding a bike",
        "youtube_id": "0wR5jVB-WPk", "time_start": 417, "time_end": 427,
    }  # fmt: skip
    assert listing.annotations["classes"]["name"].to_pylist() == [
        "abseiling",
        "arm wrestling",
        "riding a bike",
    ]


def test_kinetics_clip_that_is_not_there_stays_listed_as_missing(tmp_path):
    listing = list_sources(dataset(kinetics(tmp_path, f"val/{STEMS[0]}.mp4"), "kinetics"))
    missing = [source for source in listing.sources if source.size == MISSING_SIZE]
    assert [source.key for source in missing] == [f"val/{STEMS[1]}", f"val/{STEMS[2]}"]
    assert missing[0].uri == f"{tmp_path}/val/{STEMS[1]}.mp4"


def test_kinetics_counts_files_that_no_list_names_and_second_copies(tmp_path):
    root = kinetics(tmp_path, f"val/{STEMS[0]}.mp4", f"val/class/{STEMS[0]}.mp4", "val/AAAAAAAAAAA_000001_000011.mp4")
    listing = list_sources(dataset(root, "kinetics"))
    assert listing.sources[1].uri == f"{root}/val/{STEMS[0]}.mp4"
    assert listing.ignored == {".csv": 1, "(in no official list)": 1, "(another copy of a listed clip)": 1}


def test_kinetics_replacements_take_the_place_of_corrupted_files(tmp_path):
    good = f"replacement/replacement_for_corrupted_k400/{STEMS[0]}.mp4"
    root = kinetics(tmp_path, good, *(f"val/{stem}.mp4" for stem in STEMS))
    by_key = {source.key: source.uri for source in list_sources(dataset(root, "kinetics")).sources}
    assert by_key[f"val/{STEMS[0]}"] == f"{root}/{good}"
    assert by_key[f"val/{STEMS[1]}"] == f"{root}/val/{STEMS[1]}.mp4"


def test_kinetics_labels_do_not_depend_on_the_chosen_splits(tmp_path):
    train = "label,youtube_id,time_start,time_end,split\nzumba,AAAAAAAAAAA,1,11,train\n"
    lists = {"train.csv": train, "val.csv": K400.format(split="val")}
    root = kinetics(tmp_path, "train/AAAAAAAAAAA_000001_000011.mp4", f"val/{STEMS[0]}.mp4", **lists)
    both = list_sources(dataset(root, "kinetics"))
    assert [s.split for s in both.sources] == ["train", "val", "val", "val"]
    assert both.sources[0].label == 3
    only = list_sources(dataset(root, "kinetics", split=("train",)))
    assert only.sources == both.sources[:1]
    assert only.annotations["labels"].num_rows == 1 and only.annotations["classes"].num_rows == 4
    assert "(in no official list)" not in only.ignored


def test_kinetics_test_list_without_labels(tmp_path):
    lists = {
        "kinetics_400_validate.csv": K400.format(split="validate"),
        "test.csv": "youtube_id,time_start,time_end,split\r\nAAAAAAAAAAA,1,11,test\r\n",
    }
    root = kinetics(tmp_path, "test/AAAAAAAAAAA_000001_000011.mp4", f"val/{STEMS[0]}.mp4", **lists)
    last = list_sources(dataset(root, "kinetics")).sources[-1]
    assert (last.key, last.label, last.split) == ("test/AAAAAAAAAAA_000001_000011", None, "test")


def test_kinetics_columns_may_drift(tmp_path):
    drifted = "\ufeffclass,video_id,start,end\nzumba,AAAAAAAAAAA,1.0,11.0\n\nyoga,#NAME?,1,11\nyoga\n"
    root = kinetics(tmp_path, "val/AAAAAAAAAAA_000001_000011.mp4", **{"k600_val.csv": drifted})
    listing = list_sources(dataset(root, "kinetics"))
    assert keys(listing) == ["val/AAAAAAAAAAA_000001_000011"]
    assert listing.ignored["(line of a list without a clip)"] == 2


def test_kinetics_lists_of_mmaction2_bring_their_labels(tmp_path):
    lists = {
        "kinetics400_train_list_videos.txt": f"riding_a_bike/{STEMS[0]}.mp4 7\nabseiling/{STEMS[1]}.mp4 3\n",
        "kinetics400_val_list_videos.txt": f"../../../etc/abseiling/{STEMS[2]}.mp4 3\nabseiling/passwd 3\n",
        "kinetics400_train_list_rawframes.txt": "abseiling/x 300 3\n",
    }
    videos = [f"videos_train/riding_a_bike/{STEMS[0]}.mp4", f"videos_val/abseiling/{STEMS[2]}.mp4"]
    listing = list_sources(dataset(kinetics(tmp_path, *videos, **lists), "kinetics"))
    assert [(s.key, s.label) for s in listing.sources] == [
        (f"train/{STEMS[1]}", 3), (f"train/{STEMS[0]}", 7), (f"val/{STEMS[2]}", 3),
    ]  # fmt: skip
    assert listing.annotations["classes"].to_pylist() == [
        {"label": 3, "name": "abseiling"}, {"label": 7, "name": "riding_a_bike"},
    ]  # fmt: skip
    assert all(os.path.realpath(s.uri).startswith(str(tmp_path.resolve())) for s in listing.sources)


def test_kinetics_lists_of_paths_without_times_find_clips_by_id_alone(tmp_path):
    lists = {
        "trainlist.txt": "/data/train/riding_a_bike/0wR5jVB-WPk.mp4 252\n",
        "vallist.txt": "/data/val/abseiling/-caPS4FHFF8.mp4 0\n/data/val/arm_wrestling/_XOdVQRjxtk.mp4 6\n",
    }
    videos = ["train_256/riding_a_bike/0wR5jVB-WPk.mp4", f"val_256/abseiling/{STEMS[1]}.mp4"]
    listing = list_sources(dataset(kinetics(tmp_path, *videos, **lists), "kinetics"))
    assert [(s.key, s.label, s.size > 0) for s in listing.sources] == [
        ("train/0wR5jVB-WPk", 252, True), ("val/-caPS4FHFF8", 0, True), ("val/_XOdVQRjxtk", 6, False),
    ]  # fmt: skip


def test_kinetics_600_and_700_lists_do_not_quote_labels(tmp_path):
    rows = "label,youtube_id,time_start,time_end,split\n"
    rows += "riding a bike,AAAAAAAAAAA,1,11,validate\nyoga,BBBBBBBBBBB,0,10,validate\n"
    root = kinetics(tmp_path, "val/AAAAAAAAAAA_000001_000011.mp4", **{"kinetics700_2020_validate.csv": rows})
    listing = list_sources(dataset(root, "kinetics"))
    assert [(s.key, s.label) for s in listing.sources] == [
        ("val/AAAAAAAAAAA_000001_000011", 0), ("val/BBBBBBBBBBB_000000_000010", 1),
    ]  # fmt: skip


def test_kinetics_lists_that_slowfast_reads_bring_their_labels(tmp_path):
    root = kinetics(tmp_path, f"val/{STEMS[0]}.mp4", **{"val.csv": f"/data/val/{STEMS[0]}.mp4 17\n"})
    listing = list_sources(dataset(root, "kinetics"))
    assert [(s.key, s.label) for s in listing.sources] == [(f"val/{STEMS[0]}", 17)]


def test_kinetics_folders_named_as_another_class_change_no_label(tmp_path):
    videos = [f"val/{folder}/{stem}.mp4" for folder, stem in zip(("zumba", "yoga", "abseiling"), STEMS, strict=True)]
    listing = list_sources(dataset(kinetics(tmp_path, *videos), "kinetics"))
    assert [s.label for s in listing.sources] == [0, 2, 1]


def test_kinetics_clips_are_read_where_they_lie_in_tars(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = kinetics(tmp_path / "k400")
    videos = tree(tmp_path / "loose", *(f"{stem}.mp4" for stem in STEMS))
    with tarfile.open(root / "val_0.tar", "w") as tar:
        for stem in STEMS[:2]:
            tar.add(videos / f"{stem}.mp4", f"./{stem}.mp4")
    listing = list_sources(dataset(root, "kinetics"))
    assert [(s.key, s.size > 0) for s in listing.sources] == [
        (f"val/{STEMS[1]}", True), (f"val/{STEMS[0]}", True), (f"val/{STEMS[2]}", False),
    ]  # fmt: skip
    with open_binary(listing.sources[0].uri) as file:
        assert file.read() == f"{STEMS[1]}.mp4".encode()


def test_kinetics_two_clips_of_one_video_are_told_apart_by_times(tmp_path):
    csv = "label,youtube_id,time_start,time_end\n" + "".join(
        f"yoga,AAAAAAAAAAA,{times}\n" for times in ("1,11", "20,30", "1,11")
    )
    videos = ["val/AAAAAAAAAAA_000020_000030.mp4", "val/AAAAAAAAAAA.mp4"]
    listing = list_sources(dataset(kinetics(tmp_path, *videos, **{"val.csv": csv}), "kinetics"))
    assert [source.size == MISSING_SIZE for source in listing.sources] == [True, False]
    assert listing.ignored["(clip listed twice)"] == 1


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        ({"readme.txt": "x"}, "no official lists (train.csv, val.csv, test.csv)"),
        ({"k400_val.csv": K400, "k600_val.csv": K400}, "k400_val.csv and k600_val.csv list the same split"),
        ({"val.csv": "a,b,c\n1,2,3\n"}, "begins 'a,b,c'"),
        ({"val.csv": ""}, "begins ''"),
        ({"val.csv": K400 + '"' + "x" * 200_000 + "\n"}, "field larger than field limit"),
        (
            {"val.csv": "label,youtube_id\nyoga,AAAAAAAAAAA\n"},
            "of 1 clip in the lists, none is here",
        ),
        ({"val.csv": "label,youtube_id\n"}, "no official list has clips of train, val, test"),
    ],
)
def test_kinetics_lists_that_do_not_help_are_refused(tmp_path, lists, problem):
    root = kinetics(tmp_path, "val/BBBBBBBBBBB_000000_000010.mp4", **lists)
    assert problem in refusal(dataset(root, "kinetics"))


def test_kinetics_says_which_list_of_several_is_not_there(tmp_path, capsys):
    train = "label,youtube_id,time_start,time_end,split\nzumba,AAAAAAAAAAA,1,11,train\n"
    videos = ["train/AAAAAAAAAAA_000001_000011.mp4", f"val/{STEMS[0]}.mp4"]
    root = kinetics(tmp_path, *videos, **{"train.csv": train})
    listing = list_sources(dataset(root, "kinetics", homepage="https://example.org"))
    said = (
        f"datasets.mine: no list for split val (val.csv, looked for in {root}/annotations): its videos are left out; "
        "get it from https://example.org"
    )
    assert listing.warnings == (said,) and capsys.readouterr().err == f"warning: {said}\n"
    for split in (("val",), ("train", "val")):
        assert "no official list has clips of val" in refusal(dataset(root, "kinetics", split=split))
    assert list_sources(dataset(root, "kinetics", split=("train",))).warnings == (), "the others are not asked for"
    tree(root, "test/AAAAAAAAAAA_000001_000011.mp4")
    (warning,) = list_sources(dataset(root, "kinetics")).warnings
    assert "no list for splits val, test (val.csv, test.csv, looked" in warning, "there are videos of test"
    tree(root / "annotations", **{"val.csv": K400.format(split="val"), "test.csv": "youtube_id\nAAAAAAAAAAA\n"})
    assert list_sources(dataset(root, "kinetics")).warnings == ()


def test_kinetics_annotations_may_lie_elsewhere(tmp_path):
    lists = tree(tmp_path / "lists", **{"val.csv": K400.format(split="val")})
    root = tree(tmp_path / "k400", f"val/{STEMS[0]}.mp4")
    for annotations in (lists, lists / "val.csv"):
        listing = list_sources(dataset(root, "kinetics", annotations=str(annotations)))
        assert len(listing.sources) == 3
    nowhere = dataset(root, "kinetics", annotations=str(tmp_path / "nowhere"), homepage="https://example.org")
    assert refusal(nowhere).splitlines() == [
        f"datasets.mine.annotations: {tmp_path}/nowhere: no such file or folder",
        "get them from https://example.org, then set datasets.mine.annotations to their folder",
    ]


def test_missing_public_dataset_says_where_people_get_it(tmp_path):
    message = refusal(dataset(tmp_path / "none", "kinetics", homepage="https://example.org/k400"))
    assert "get it from https://example.org/k400, then set datasets.mine.root" in message


def test_official_kinetics_list_gives_the_official_label_map(media, tmp_path):
    lists = media / "annotations" / "kinetics"
    tree(tmp_path, "val/0wR5jVB-WPk_000417_000427.mp4")
    config = dataset(tmp_path, "kinetics", annotations=str(lists / "kinetics-400_val.csv"))
    listing = list_sources(config)
    assert len(listing.sources) == 19_906
    official = (lists / "label_map_k400.txt").read_text().splitlines()
    assert listing.annotations["classes"]["name"].to_pylist() == official
    found = [source for source in listing.sources if source.size != MISSING_SIZE]
    assert [(source.key, source.label) for source in found] == [("val/0wR5jVB-WPk_000417_000427", 0)]


def test_kinetics_in_a_bucket(bucket):
    bucket.pipe("/bucket/k/annotations/val.csv", K400.format(split="val").encode())
    bucket.pipe(f"/bucket/k/val/{STEMS[0]}.mp4", b"video")
    listing = list_sources(dataset("memory://bucket/k", "kinetics"))
    assert [(s.key, s.label, s.size) for s in listing.sources if s.size > 0] == [(f"val/{STEMS[0]}", 2, 5)]
