"""Readers: what is on disk, in every layout people have, becomes the same listing on every machine."""

import os
import socket
from importlib import import_module

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listings import dataset, keys, refusal, tree

from toto.errors import UsageError
from toto.tokenize.sources import READERS, list_sources
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.names import escape, suffix_of

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
        "empty": "the folder is empty",
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
