"""Readers: what is on disk, in every layout people have, becomes the same listing on every machine."""

import os
import socket
import tarfile
from importlib import import_module

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listings import dataset, keys, refusal, tree

from toto.errors import UsageError
from toto.tokenize.input_file import open_binary
from toto.tokenize.sources import READERS, list_sources
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.names import escape, suffix_of

K400 = """label,youtube_id,time_start,time_end,split,is_cc
"riding a bike",0wR5jVB-WPk,417,427,{split},0
abseiling,-caPS4FHFF8,36,46,{split},0
"arm wrestling",_XOdVQRjxtk,0,10,{split},1
"""
SPACED = ("riding a bike", "abseiling", "arm wrestling")
JOINED = ("riding_a_bike", "abseiling", "arm_wrestling")
STEMS = ("0wR5jVB-WPk_000417_000427", "-caPS4FHFF8_000036_000046", "_XOdVQRjxtk_000000_000010")


# folder


def test_folder_lists_videos_and_images_at_any_depth_in_order_of_keys(tmp_path):
    tree(
        tmp_path,
        "b/clip.MP4",
        "a.webm",
        "b/c/d/e.JPEG",
        "raw.h264",
        "b.gif",
        "notes.txt",
        "b/README",
        "x.TXT",
    )
    listing = list_sources(dataset(tmp_path))
    assert keys(listing) == ["a.webm", "b.gif", "b/c/d/e.JPEG", "b/clip.MP4", "raw.h264"]
    assert [source.kind for source in listing.sources] == ["video", "image", "image", "video", "video"]
    assert {source.split for source in listing.sources} == {"all"}
    assert listing.ignored == {".txt": 2, "(no suffix)": 1}
    assert listing.annotations == {}


def test_source_says_where_how_large_and_how_old(tmp_path):
    tree(tmp_path, "a.mp4")
    os.utime(tmp_path / "a.mp4", ns=(0, 1_700_000_000_123_456_789))
    (source,) = list_sources(dataset(tmp_path)).sources
    assert (source.uri, source.size, source.mtime_us) == (f"{tmp_path}/a.mp4", 5, 1_700_000_000_123_456)


def test_folder_passes_over_what_is_hidden_or_left_behind(tmp_path):
    tree(tmp_path, "a.mp4", ".b.mp4", "._a.mp4", ".git/c.mp4", "__MACOSX/a.mp4", ".ipynb_checkpoints/a.png")
    listing = list_sources(dataset(tmp_path))
    assert keys(listing) == ["a.mp4"] and listing.ignored == {}


def test_folder_holds_out_a_share_by_key_so_that_a_growing_folder_moves_none(tmp_path):
    tree(tmp_path, *(f"clips/{i:03d}.mp4" for i in range(300)))
    first = {s.key: s.split for s in list_sources(dataset(tmp_path, held_out=0.2)).sources}
    assert set(first.values()) == {"train", "val"} and 40 <= sum(split == "val" for split in first.values()) <= 80
    tree(tmp_path, *(f"clips/{i:03d}.mp4" for i in range(300, 400)))
    grown = {s.key: s.split for s in list_sources(dataset(tmp_path, held_out=0.2)).sources}
    assert first.items() <= grown.items() and len(grown) == 400
    held_out = list_sources(dataset(tmp_path, held_out=0.2, split=("val",))).sources
    assert [s.key for s in held_out] == sorted(key for key, split in grown.items() if split == "val")


def test_folder_labels_are_the_first_sub_folders_on_request(tmp_path):
    tree(tmp_path, "dog/1.mp4", "cat/deep/2.mp4", "cat/3.png", "loose.mp4")
    listing = list_sources(dataset(tmp_path, labels="folders"))
    assert [(s.key, s.label) for s in listing.sources] == [
        ("cat/3.png", 0), ("cat/deep/2.mp4", 0), ("dog/1.mp4", 1), ("loose.mp4", None),
    ]  # fmt: skip
    labels = listing.annotations["labels"]
    assert labels["source"].to_pylist() == keys(listing)
    assert labels["name"].to_pylist() == ["cat", "cat", "dog", None]
    assert labels.schema.field("label").type == pa.int32()
    assert listing.annotations["classes"].to_pylist() == [
        {"label": 0, "name": "cat"},
        {"label": 1, "name": "dog"},
    ]


def test_links_are_followed_and_circles_end(tmp_path):
    root = tree(tmp_path / "root", "real/a.mp4")
    outside = tree(tmp_path / "outside", "sub/b.mp4")
    (root / "0-same").symlink_to(root / "real")
    (root / "real" / "up").symlink_to(root)
    (root / "far").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (root / "file.mp4").symlink_to(outside / "sub" / "b.mp4")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    (root / "gone.mp4").symlink_to(root / "nowhere.mp4")
    listing = list_sources(dataset(root))
    assert keys(listing) == ["far/sub/b.mp4", "file.mp4", "gone.mp4", "real/a.mp4", "self.mp4"]
    assert [s.key for s in listing.sources if s.size == MISSING_SIZE] == ["gone.mp4", "self.mp4"]


def test_what_is_no_plain_file_is_never_opened(tmp_path):
    tree(tmp_path, "a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(tmp_path / "s.mp4"))
        listing = list_sources(dataset(tmp_path))
    assert keys(listing) == ["a.mp4"] and listing.ignored == {"(not a regular file)": 2}


def test_name_that_is_not_utf8_gets_a_key_that_is_and_stays_readable(tmp_path):
    tree(tmp_path, os.fsdecode(b"caf\xe9.mp4"), "café.mp4", "caf%E9.mp4", "100%.mp4", "a%20b.mp4")
    listing = list_sources(dataset(tmp_path))
    assert keys(listing) == ["100%.mp4", "a%20b.mp4", "caf%25E9.mp4", "caf%E9.mp4", "café.mp4"]
    odd = next(source for source in listing.sources if source.key == "caf%E9.mp4")
    with open(odd.uri, "rb") as file:
        assert file.read() == b"caf\xe9.mp4"


@given(st.lists(st.binary(max_size=8) | st.from_regex(rb"[%25FEa\xff]{0,8}", fullmatch=True), min_size=2))
def test_no_two_names_get_the_same_key(names):
    texts = {name.decode("utf-8", "surrogateescape") for name in names}
    assert len({escape(text).encode() for text in texts}) == len(texts)


@pytest.mark.parametrize("make", ["missing", "file", "empty", "no media"])
def test_folder_without_media_is_refused_with_place_and_advice(tmp_path, make):
    root = tmp_path / "videos"
    if make == "file":
        root.write_text("x")
    elif make != "missing":
        root.mkdir()
    if make == "no media":
        tree(root, "a.txt", "b.csv")
    message = refusal(dataset(root))
    expected = {
        "missing": "no such folder",
        "file": "not a folder",
        "empty": "(0 other",
        "no media": "(2 other",
    }
    assert str(root) in message and expected[make] in message and "set datasets.mine.root" in message


def test_folder_that_may_not_be_listed_is_counted_and_as_root_refused(tmp_path, monkeypatch):
    tree(tmp_path, "a.mp4", "closed/b.mp4")
    scandir = os.scandir

    def guarded(path):  # chmod does not stop the superuser
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert list_sources(dataset(tmp_path)).ignored == {"(folder that cannot be listed)": 1}
    assert "cannot be listed (Permission denied)" in refusal(dataset(tmp_path / "closed"))


def test_unknown_split_is_a_usage_error(tmp_path):
    tree(tmp_path, "a.mp4")
    assert "did you mean 'train'" in refusal(dataset(tmp_path, "kinetics", split=("tran",)), UsageError)
    assert "unknown split 'val'" in refusal(dataset(tmp_path, split=("val",)), UsageError)


def test_message_about_a_root_shows_no_password():
    said = refusal(dataset("memory://me:hunter2@nowhere/x?token=hunter2"), UsageError)
    assert "hunter2" not in said and "datasets.mine.root" in said


# Through fsspec


def test_folder_in_a_bucket_lists_like_a_local_one(bucket, tmp_path):
    names = ("b/clip.mp4", "a.webm", ".hidden.mp4", "b/.x/y.mp4", "notes.txt", "b/c.png")
    for name in names:
        bucket.pipe(f"/bucket/set/{name}", name.encode())
    bucket.pipe("/bucket/setting/z.mp4", b"another folder")
    tree(tmp_path, *names)
    there, here = list_sources(dataset("memory://bucket/set")), list_sources(dataset(tmp_path))
    assert keys(there) == keys(here) == ["a.webm", "b/c.png", "b/clip.mp4"]
    assert [s.size for s in there.sources] == [s.size for s in here.sources]
    assert there.ignored == here.ignored
    with fsspec.open(there.sources[0].uri, "rb") as file:
        assert file.read() == b"a.webm"
    assert there.sources[0].mtime_us > 0


def test_name_that_climbs_out_of_a_bucket_folder_is_left_out(bucket, monkeypatch):
    bucket.pipe("/bucket/set/a.mp4", b"a")
    found = {
        "/bucket/set/../x.mp4": {"size": 1, "type": "file"},
        "/bucket/set/a.mp4": {"size": 1, "type": "file"},
    }
    monkeypatch.setattr(type(bucket), "find", lambda self, path, detail: found)
    listing = list_sources(dataset("memory://bucket/set"))
    assert keys(listing) == ["a.mp4"] and listing.ignored == {"(unsafe name)": 1}


@pytest.mark.parametrize("root", ["memory://bucket/none", "nosuch://bucket/x", "file:///no/such/folder"])
def test_place_that_cannot_be_listed_is_one_error(root, bucket):
    bucket.pipe("/bucket/other", b"x")
    assert root in refusal(dataset(root))


def test_kinetics_in_a_bucket(bucket):
    bucket.pipe("/bucket/k/annotations/val.csv", K400.format(split="val").encode())
    bucket.pipe(f"/bucket/k/val/{STEMS[0]}.mp4", b"video")
    listing = list_sources(dataset("memory://bucket/k", "kinetics"))
    assert [(s.key, s.label, s.size) for s in listing.sources if s.size > 0] == [(f"val/{STEMS[0]}", 2, 5)]


# Kinetics


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
            "none of the 1 clips that the lists name is here",
        ),
        ({"val.csv": "label,youtube_id\n"}, "no official list has clips of train, val, test"),
    ],
)
def test_kinetics_lists_that_do_not_help_are_refused(tmp_path, lists, problem):
    root = kinetics(tmp_path, "val/BBBBBBBBBBB_000000_000010.mp4", **lists)
    assert problem in refusal(dataset(root, "kinetics"))


def test_kinetics_annotations_may_lie_elsewhere(tmp_path):
    lists = tree(tmp_path / "lists", **{"val.csv": K400.format(split="val")}) if (tmp_path / "lists").mkdir() else None
    lists = tree(tmp_path / "lists", **{"val.csv": K400.format(split="val")})
    root = tree(tmp_path / "k400", f"val/{STEMS[0]}.mp4")
    for annotations in (lists, lists / "val.csv"):
        listing = list_sources(dataset(root, "kinetics", annotations=str(annotations)))
        assert len(listing.sources) == 3
    assert "no such file" in refusal(dataset(root, "kinetics", annotations=str(tmp_path / "nowhere")))


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


# ImageNet


def test_imagenet_labels_are_sorted_wnids_over_train_and_val(tmp_path):
    tree(
        tmp_path, "train/n02/x.JPEG", "train/n02000000/n02000000_1.JPEG", "train/n01000000/n01000000_9.JPEG",
        "val/n03000000/ILSVRC2012_val_00000001.JPEG", "val/n03000000/notes.txt", "train/n02000000/clip.mp4",
    )  # fmt: skip
    listing = list_sources(dataset(tmp_path, "imagenet"))
    assert [(s.key, s.split, s.label, s.kind) for s in listing.sources] == [
        ("train/n01000000/n01000000_9.JPEG", "train", 0, "image"),
        ("train/n02000000/n02000000_1.JPEG", "train", 1, "image"),
        ("val/n03000000/ILSVRC2012_val_00000001.JPEG", "val", 2, "image"),
    ]
    assert listing.annotations["labels"]["name"].to_pylist() == ["n01000000", "n02000000", "n03000000"]
    assert listing.ignored == {".txt": 1, ".mp4": 1, "(not in <split>/<wnid>/)": 1}
    assert list_sources(dataset(tmp_path, "imagenet", split=("val",))).sources == listing.sources[2:]


def test_part_of_imagenet_keeps_the_labels_of_the_official_mapping(tmp_path):
    tree(tmp_path, "val/n03000000/a.JPEG", "val/n09999999/b.JPEG", "test/ILSVRC2012_test_00000001.JPEG")
    tree(tmp_path, **{"LOC_synset_mapping.txt": "n03000000 third\nn01000000 first, one\nn02000000 second\n"})
    listing = list_sources(dataset(tmp_path, "imagenet"))
    assert [(s.key, s.label) for s in listing.sources] == [
        ("val/n03000000/a.JPEG", 2), ("test/ILSVRC2012_test_00000001.JPEG", None),
    ]  # fmt: skip
    assert listing.ignored["(class that LOC_synset_mapping.txt does not name)"] == 1


def test_flat_imagenet_val_is_refused_because_its_classes_are_unknown(tmp_path):
    tree(tmp_path, "train/n01000000/a.JPEG", "val/ILSVRC2012_val_00000001.JPEG")
    message = refusal(dataset(tmp_path, "imagenet"))
    assert "val: the images lie flat" in message and "--set datasets.mine.split=train" in message
    assert len(list_sources(dataset(tmp_path, "imagenet", split=("train",))).sources) == 1


def test_imagenet_without_images_is_refused(tmp_path):
    tree(tmp_path, "dogs/1.jpg")
    assert "no images in <split>/<wnid>/ for train, val, test" in refusal(dataset(tmp_path, "imagenet"))


def test_real_imagenet_images_get_the_labels_of_their_reviewed_list(media, tmp_path):
    (tmp_path / "val").symlink_to(media / "image_labelled" / "imagenet_val227")
    (tmp_path / "train").symlink_to(media / "image_labelled" / "imagenet_train1")
    config = dataset(tmp_path, "imagenet", annotations=str(media / "annotations" / "imagenet"))
    listing = list_sources(config)
    assert [s.split for s in listing.sources] == ["train"] * 10 + ["val"] * 55
    official = (media / "annotations" / "imagenet" / "LOC_synset_mapping.txt").read_text().splitlines()
    assert listing.annotations["classes"].num_rows == len(official) == 1000
    index = {line.split()[0]: number for number, line in enumerate(official)}
    assert all(source.label == index[source.key.split("/")[1]] for source in listing.sources)


# Demo


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small demo world."""
    pytest.importorskip("av")
    from toto.tokenize.demo import WorldSpec, build

    root = tmp_path_factory.mktemp("demo") / "world"
    small = WorldSpec(
        classes=2, videos_per_class=2, frames=6, size=(32, 32), image_classes=2, images_per_class=2,
        davis_sequences=2, davis_frames=2, davis_size=(32, 32), cater_videos=2, cater_frames=13,
        cater_size=(32, 32), sta_videos=2, sta_frames=40, sta_size=(32, 32),
    )  # fmt: skip
    build(root, small)
    return root


def test_demo_lists_videos_and_images_each_with_classes_of_their_own(world):
    listing = list_sources(dataset(world, "demo"))
    videos = [source for source in listing.sources if source.key.startswith("kinetics/")]
    images = [source for source in listing.sources if source.key.startswith("imagenet/")]
    assert len(videos) == len(images) == 4 and len(listing.sources) == 8
    assert {s.kind for s in videos} == {"video"} and {s.kind for s in images} == {"image"}
    assert all(s.size > 0 and os.path.exists(s.uri) for s in listing.sources)
    assert [s.split for s in listing.sources] == sorted(s.split for s in listing.sources)
    for sources, labels, classes in (
        (videos, "labels", "classes"),
        (images, "image_labels", "image_classes"),
    ):
        rows = listing.annotations[labels].to_pylist()
        assert [(r["source"], r["label"]) for r in rows] == [(s.key, s.label) for s in sources]
        assert listing.annotations[classes].num_rows == 2


def test_demo_takes_one_split(world):
    splits = {source.split for source in list_sources(dataset(world, "demo", split=("val",))).sources}
    assert splits == {"val"}


def test_demo_draws_the_world_when_there_is_none(tmp_path, monkeypatch, capsys, world):
    from toto.tokenize.sources import demo

    drawn = []

    def build(root, spec, progress):
        drawn.append(root)
        progress(1, 1)
        os.symlink(world, root)

    monkeypatch.setattr(demo, "build", build)
    listing = list_sources(dataset(tmp_path / "new", "demo"))
    assert drawn == [tmp_path / "new"] and len(listing.sources) == 8
    assert "drawing the demo world" in capsys.readouterr().err
    list_sources(dataset(tmp_path / "new", "demo"))
    assert len(drawn) == 1


def test_demo_needs_a_local_folder():
    assert "needs a local folder" in refusal(dataset("memory://world", "demo"), UsageError)


# Real media


def test_every_file_of_the_real_media_is_listed_or_counted(media):
    for folder in ("video_real", "video_hard", "image_hard", "audio_only"):
        listing = list_sources(dataset(media / folder))
        files = [name for _, _, names in os.walk(media / folder) for name in names]
        assert len(listing.sources) + sum(listing.ignored.values()) == len(files)
        assert set(listing.ignored) <= {".mp3"}, f"{folder}: {listing.ignored}"


def test_readers_are_importable_by_their_names():
    names = {name: name.replace("-", "_") for name in READERS}
    assert {name: module.rsplit(".", 1)[1] for name, module in READERS.items()} == names
    assert all(callable(import_module(module).read) for module in READERS.values())
    assert suffix_of("a.b/C.MP4") == ".mp4" and suffix_of("none") == ""
