"""DAVIS: sequences by the official lists, masks byte for byte, object counts by the official reader's rule."""

import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
from footage import numbered
from made import DCT, config, make, pixels
from PIL import Image

from toto.config import DatasetConfig
from toto.errors import UsageError, UserError
from toto.tokenize.demo.davis import palette
from toto.tokenize.sources import list_sources
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.masks import MASKS

SIZE = (48, 32)


def mask_of(ids: Sequence[int], mode: str = "P") -> Image.Image:
    """A mask with a block of each id."""
    values = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    for place, value in enumerate(ids):
        values[4 * place : 4 * place + 4, 8:24] = value
    image = Image.fromarray(values, "L")
    if mode == "P":
        image = image.convert("P")
        image.putdata(list(values.reshape(-1)))
        image.putpalette(palette())
    return image.convert(mode) if mode == "1" else image


def sequence(
    root: Path, name: str, masks: Sequence[Image.Image | None], at: str = "480p", folder: str = "Annotations"
) -> None:
    """Numbered frames, and the masks of those that have one."""
    pictures, annotations = root / "JPEGImages" / at / name, root / folder / at / name
    for place in (pictures, annotations):
        place.mkdir(parents=True, exist_ok=True)
    for i, (picture, mask) in enumerate(zip(numbered(len(masks), SIZE), masks, strict=False)):
        Image.fromarray(picture).save(pictures / f"{i:05d}.jpg", quality=100, subsampling=0)
        if mask is not None:
            mask.save(annotations / f"{i:05d}.png")


def lists(root: Path, folder: str = "2017", **sequences: str) -> None:
    (root / "ImageSets" / folder).mkdir(parents=True, exist_ok=True)
    for split, names in sequences.items():
        (root / "ImageSets" / folder / f"{split.replace('_', '-')}.txt").write_text(names)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sequences of val, one of train, one of test-dev with its first mask alone, one in no list."""
    sequence(tmp_path, "bear", [mask_of([1]), mask_of([1, 255])])
    sequence(tmp_path, "two-dogs", [mask_of([1, 2]), mask_of([2, 255]), mask_of([])])
    sequence(tmp_path, "ant", [mask_of([1, 3]), mask_of([3])])
    sequence(tmp_path, "unseen", [mask_of([1]), None, None])
    sequence(tmp_path, "stray", [mask_of([1])])
    lists(tmp_path, train="two-dogs\n", val="bear\r\nant\n", test_dev="unseen\n")
    return tmp_path


def davis(root: Path | str, **changes: object) -> DatasetConfig:
    return config(root, layout="davis", **changes)


def test_a_sequence_is_one_source_by_its_name_in_the_split_that_lists_it(root: Path) -> None:
    listing = list_sources(davis(root))
    assert [(s.key, s.split, s.kind, s.label) for s in listing.sources] == [
        ("two-dogs", "train", "video", None),
        ("ant", "val", "video", None),
        ("bear", "val", "video", None),
        ("unseen", "test-dev", "video", None),
    ]
    dogs = listing.sources[0]
    files = sorted((root / "JPEGImages" / "480p" / "two-dogs").iterdir())
    assert dogs.uri == f"frames:{root}/JPEGImages/480p/two-dogs"
    assert dogs.size == sum(file.stat().st_size for file in files)
    assert dogs.mtime_us == max(file.stat().st_mtime_ns // 1000 for file in files)
    assert listing.ignored["(sequence in no chosen list)"] == 1


def test_masks_are_kept_byte_for_byte_beside_the_numbers_of_their_frames(root: Path) -> None:
    table = list_sources(davis(root)).annotations["masks"]
    assert table.schema == MASKS
    for line in table.to_pylist():
        path = root / "Annotations" / "480p" / line["source"] / f"{line['name']}.png"
        assert line["png"] == (path.read_bytes() if path.exists() else None)
        assert (line["height"], line["width"]) == ((32, 48) if path.exists() else (None, None))
        assert line["frame"] == int(line["name"])
    objects = {(line["source"], line["frame"]): line["objects"] for line in table.to_pylist()}
    assert objects == {
        ("two-dogs", 0): 2, ("two-dogs", 1): 2, ("two-dogs", 2): 0, ("ant", 0): 3, ("ant", 1): 3,
        ("bear", 0): 1, ("bear", 1): 1, ("unseen", 0): 1, ("unseen", 1): None, ("unseen", 2): None,
    }  # fmt: skip
    assert set(table["binary"].to_pylist()) == {False, None}


@pytest.mark.parametrize("mode", ["L", "1"])
def test_grey_masks_of_2016_are_told_apart_or_their_object_would_be_void(tmp_path: Path, mode: str) -> None:
    sequence(tmp_path, "bear", [mask_of([255], mode), mask_of([], mode)])
    lists(tmp_path, "480p", val="/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png\n")
    listing = list_sources(davis(tmp_path))
    assert [source.key for source in listing.sources] == ["bear"]
    found = listing.annotations["masks"].select(["objects", "binary"]).to_pylist()
    assert found == [{"objects": 1, "binary": True}, {"objects": 0, "binary": True}]


def test_void_alone_in_an_indexed_mask_is_no_object(tmp_path: Path) -> None:
    sequence(tmp_path, "bear", [mask_of([255])])
    lists(tmp_path, val="bear\n")
    (line,) = list_sources(davis(tmp_path)).annotations["masks"].to_pylist()
    assert (line["objects"], line["binary"]) == (0, False)


def test_a_mask_that_cannot_be_trusted_is_counted_and_left_out(root: Path) -> None:
    masks = root / "Annotations" / "480p" / "ant"
    (masks / "00000.png").write_bytes(b"no picture")
    Image.new("RGB", SIZE).save(masks / "00001.png")
    mask_of([1]).save(masks / "00009.png")
    (root / "Annotations/480p/two-dogs/00002.png").unlink()
    (root / "Annotations/480p/two-dogs/00002.png").symlink_to("nowhere")
    bomb = (root / "Annotations/480p/bear/00001.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 40_000, 40_000) + bomb[24:29]  # a small file that says it is huge
    bomb = bomb[:12] + header + struct.pack(">I", zlib.crc32(header)) + bomb[33:]
    (root / "Annotations/480p/bear/00001.png").write_bytes(bomb)
    listing = list_sources(davis(root))
    assert listing.ignored["(mask that is no readable indexed PNG)"] == 4
    assert listing.ignored["(mask without a frame)"] == 1
    of_ant = [line for line in listing.annotations["masks"].to_pylist() if line["source"] == "ant"]
    assert [line["png"] for line in of_ant] == [None, None]


def test_variants_name_the_resolution_and_the_unsupervised_masks(root: Path) -> None:
    sequence(root, "bear", [mask_of([1])] * 4, "Full-Resolution")
    sequence(root, "bear", [mask_of([1, 2, 3])] * 4, "Full-Resolution", "Annotations_unsupervised")
    lists(root, "2019", test_dev="bear\n")
    full = list_sources(davis(root, variant="Full-Resolution", split=("val",)))
    assert [(s.key, s.size == MISSING_SIZE) for s in full.sources] == [("ant", True), ("bear", False)]
    assert full.annotations["masks"].num_rows == 4 and full.annotations["masks"]["objects"][0].as_py() == 1
    other = list_sources(davis(root, variant="Full-Resolution-unsupervised", split=("test-dev",)))
    assert [s.key for s in other.sources] == ["bear"]
    assert other.annotations["masks"]["objects"].to_pylist() == [3] * 4
    with pytest.raises(
        UsageError, match=r"datasets\.mine\.variant: unknown variant '720p'\nknown: 480p, Full-Resolution"
    ):
        list_sources(davis(root, variant="720p"))


def test_a_listed_sequence_that_is_not_there_stays_in_the_listing(root: Path) -> None:
    lists(root, val="bear\ncamel\n../../etc\n..\n")
    listing = list_sources(davis(root, split=("val",)))
    assert [(s.key, s.size == MISSING_SIZE) for s in listing.sources] == [("bear", False), ("camel", True)]
    assert listing.ignored["(line of a list that names no sequence)"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": ("test-challenge",)}, r"ImageSets/2017/test-challenge\.txt"),
        ({"variant": "Full-Resolution"}, r"of 4 sequences in the lists, none.*JPEGImages/Full-Resolution"),
    ],
)
def test_what_is_not_there_is_named(root: Path, changes: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        list_sources(davis(root, **changes))


def test_a_folder_without_lists_is_refused(tmp_path: Path) -> None:
    sequence(tmp_path, "bear", [mask_of([1])])
    with pytest.raises(UserError, match=r"no list of sequences ImageSets/2017/train\.txt"):
        list_sources(davis(tmp_path))


def test_a_list_of_several_that_is_not_there_is_named(root: Path, tmp_path: Path) -> None:
    where = "looked for in .* and its annotations/"
    (warning,) = list_sources(davis(root)).warnings
    assert "no list for split test-challenge (ImageSets/2017/test-challenge.txt, looked" in warning, "one is in no list"
    (root / "ImageSets" / "2017" / "val.txt").unlink()
    (warning,) = list_sources(davis(root)).warnings
    assert re.search(rf"no list for split val \(ImageSets/2017/val\.txt, {where}\): its sequences are left", warning)
    assert list_sources(davis(root, split=("train",))).warnings == ()
    whole = tmp_path / "whole"
    sequence(whole, "bear", [None])
    sequence(whole, "ant", [None])
    lists(whole, train="bear\n", val="ant\n")
    assert list_sources(davis(whole)).warnings == (), "who has no tests needs no lists of them"
    with pytest.raises(UserError, match=rf"datasets\.mine\.annotations: {root}: no list of sequences"):
        list_sources(davis(whole, annotations=str(root), split=("val",)))


def test_a_store_lists_as_a_disk_does(root: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{root}/", "bucket/davis/", recursive=True)
    try:
        there, here = list_sources(davis("memory://bucket/davis")), list_sources(davis(root))
        assert [(s.key, s.split, s.size) for s in there.sources] == [(s.key, s.split, s.size) for s in here.sources]
        assert there.sources[0].uri == "frames:memory:///bucket/davis/JPEGImages/480p/two-dogs"
        assert there.annotations["masks"].equals(here.annotations["masks"])
    finally:
        store.rm("bucket", recursive=True)


def test_rows_and_masks_of_a_made_dataset_lie_frame_by_frame(root: Path, tmp_path: Path) -> None:
    dataset = make(root, tmp_path / "set", layout="davis", split=("val", "test-dev"))
    masks = dataset.annotations("masks").to_pylist()
    assert {line["source"] for line in masks} == {"ant", "bear", "unseen"} and len(dataset) == 3
    for row in dataset.rows():
        lines = [line for line in masks if line["source"] == row.source]
        assert row.frame_index.tolist() == [line["frame"] for line in lines]
        assert pixels(row)[:, 0, 0, 0].tolist() == pytest.approx(row.frame_index.tolist(), abs=1), "JPEG moves a colour"
    whole = make(root, tmp_path / "set", layout="davis", split=("val", "test-dev", "train"))
    assert whole.annotations("masks").num_rows == len(masks) + 3


def test_real_sequences_have_their_masks(media: Path, tmp_path: Path) -> None:
    """Three frames each of two sequences with the masks of 2016, and one with true masks of 2017."""
    for name in ("blackswan", "bmx-trees"):
        for kind, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
            place = tmp_path / "davis" / kind / "480p" / name
            place.mkdir(parents=True)
            for i in range(3):
                picture = f"{i:05d}.{suffix}"
                (place / picture).symlink_to(media / "davis" / "DAVIS" / kind / "480p" / name / picture)
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / "davis" / kind / "480p" / "bear").symlink_to(media / "davis" / "davis2017_palette" / f"bear_{kind}")
    lists(tmp_path / "davis", val="blackswan\nbmx-trees\nbear\n")
    asked = {"layout": "davis", "crop": "squash", "resolution": 64, "keep_pixels": None}
    dataset = make(tmp_path / "davis", tmp_path / "set", DCT, **asked)
    assert {row.source: (row.n_frames, row.grid_h, row.grid_w) for row in dataset.rows()} == {
        "bear": (2, 8, 8), "blackswan": (3, 8, 8), "bmx-trees": (3, 8, 8),
    }  # fmt: skip
    found = {line["source"]: line for line in dataset.annotations("masks").to_pylist()}
    assert [(found[name]["objects"], found[name]["binary"]) for name in sorted(found)] == [
        (1, False), (1, True), (1, True),
    ]  # fmt: skip
    assert {(line["height"], line["width"]) for line in found.values()} == {(480, 854)}
    assert set(dataset.sources()["width"].to_pylist()) == {854}
