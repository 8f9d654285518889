"""ImageNet as it is downloaded: archives and development kit give the sources and labels of sorted folders."""

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from archives import tar_of
from fault_proxy import FaultProxy
from object_store import s3, upload  # noqa: F401
from PIL import Image

from toto import Dataset
from toto.config import DatasetConfig
from toto.errors import UserError
from toto.shards.annotation_file import read_annotation
from toto.shards.store import open_store
from toto.tokenize.cli import resolve
from toto.tokenize.clip import SourceError
from toto.tokenize.input_file import open_binary
from toto.tokenize.plan import extend_plans
from toto.tokenize.run import Options, tokenize
from toto.tokenize.sources import Listing, list_sources
from toto.tokenize.sources.mat_file import load_variable

pytestmark = pytest.mark.usefixtures("cache")

KIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# The official ids are in no order of names. 900 is a group, as the kit has 860 of.
SYNSETS = [(3, "n01000000", "tench, Tinca tinca"), (1, "n02000000", "goldfish"), (2, "n03000000", "ébène")]
TRAIN = {"n02000000": (7, 12), "n01000000": (3,), "n03000000": (100,)}
VAL_IDS = (2, 3, 3, 1)  # of images 1 to 4
VAL = {1: "n03000000", 2: "n01000000", 3: "n01000000", 4: "n02000000"}  # which is to say
LABELS = {"n01000000": 0, "n02000000": 1, "n03000000": 2}


def jpeg(seed: int) -> bytes:
    """A small picture of noise."""
    target = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(target, "JPEG")
    return target.getvalue()


def train_images() -> dict[str, bytes]:
    """<wnid>/<wnid>_<n>.JPEG -> bytes."""
    return {f"{wnid}/{wnid}_{n}.JPEG": jpeg(n) for wnid, numbers in TRAIN.items() for n in numbers}


def val_images() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(1000 + n) for n in (3, 1, 4, 2)}  # as unsorted as in the archive


def of_class(wnid: str) -> dict[str, bytes]:
    """Those of one class."""
    return {name: data for name, data in train_images().items() if name.startswith(wnid)}


def train_tars() -> dict[str, bytes]:
    """<wnid>.tar -> bytes."""
    return {
        f"{wnid}.tar": tar_of({name.split("/")[1]: data for name, data in of_class(wnid).items()}) for wnid in TRAIN
    }


def meta_mat(synsets: Sequence[tuple[int, str, str]], **options: Any) -> bytes:
    """meta.mat as the kit has it: a column of structs, a group of classes at its end."""
    from scipy.io import savemat

    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    rows = np.empty((len(synsets) + 1, 1), [(field, object) for field in fields])
    groups = [(*synset, "a gloss", 0, [], 0, 1300) for synset in synsets]
    for i, row in enumerate([*groups, (900, "n00000001", "fish", "a group", 2, [1, 2], 3, 0)]):
        rows[i, 0] = row
    target = io.BytesIO()
    savemat(target, {"synsets": rows}, **options)
    return target.getvalue()


def kit_files(ids: Sequence[int] = VAL_IDS) -> dict[str, bytes]:
    folder = "ILSVRC2012_devkit_t12"
    return {
        f"{folder}/readme.txt": b"",
        f"{folder}/data/{TRUTH}": "".join(f"{number}\n" for number in ids).encode(),
        f"{folder}/data/meta.mat": meta_mat(SYNSETS),
    }


def archives() -> dict[str, bytes]:
    """The official downloads."""
    test = {f"test/ILSVRC2012_test_{n:08d}.JPEG": jpeg(2000 + n) for n in (1, 2)}
    return {
        "ILSVRC2012_img_train.tar": tar_of(train_tars()),
        "ILSVRC2012_img_val.tar": tar_of(val_images()),
        "ILSVRC2012_img_test_v10102019.tar": tar_of(test),
        KIT: tar_of(kit_files(), mode="w:gz"),
    }


def folders() -> dict[str, bytes]:
    """The same, extracted, val sorted into folders by hand."""
    files = {f"train/{name}": data for name, data in train_images().items()}
    files |= {f"val/{VAL[int(name[15:23])]}/{name}": data for name, data in val_images().items()}
    return files | {f"test/ILSVRC2012_test_{n:08d}.JPEG": jpeg(2000 + n) for n in (1, 2)}


def place(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def listing(root: Path | str, layout: str = "imagenet", **more: Any) -> Listing:
    return list_sources(DatasetConfig(name="mine", layout=layout, root=str(root), **more))


def facts(found: Listing) -> list[tuple[str, str, int | None, bytes]]:
    """(key, split, label, bytes) of every source."""
    rows = []
    for source in found.sources:
        with open_binary(source.uri) as file:
            rows.append((source.key, source.split, source.label, file.read()))
        assert source.kind == "image" and source.size == len(rows[-1][3])
    return rows


def refusal(root: Path, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        listing(root, **more)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def expected() -> list[tuple[str, str, int | None, bytes]]:
    """By hand: split by split, by key, labels among the sorted WordNet ids."""
    rows = [(f"train/{name}", "train", LABELS[name[:9]], data) for name, data in sorted(train_images().items())]
    names = sorted((VAL[int(name[15:23])], name, data) for name, data in val_images().items())
    rows += [(f"val/{wnid}/{name}", "val", LABELS[wnid], data) for wnid, name, data in names]
    return rows + [(f"test/ILSVRC2012_test_{n:08d}.JPEG", "test", None, jpeg(2000 + n)) for n in (1, 2)]


# The archives


def test_archives_give_the_sources_of_sorted_folders(tmp_path: Path) -> None:
    assert facts(listing(place(tmp_path / "archives", archives()))) == expected()
    assert facts(listing(place(tmp_path / "folders", folders()))) == expected()


@pytest.mark.parametrize("layout", ["train of tars", "flat val", "both", "in a sub-folder", "unpacked kit"])
def test_every_mixture_gives_them_too(layout: str, tmp_path: Path) -> None:
    files = archives()
    flat = {f"val/{name}": data for name, data in val_images().items()}
    if layout == "train of tars":
        files |= {f"train/{name}": data for name, data in train_tars().items()}
        del files["ILSVRC2012_img_train.tar"]
    elif layout == "flat val":
        files |= flat
        del files["ILSVRC2012_img_val.tar"]
    elif layout == "both":
        files |= folders() | flat
    elif layout == "in a sub-folder":
        files = {f"downloads/{name}" if name != KIT else name: data for name, data in files.items()}
    else:
        files |= kit_files()
        del files[KIT]
    found = listing(place(tmp_path, files))
    assert facts(found) == expected()
    copies = {"(another copy of a listed image)": 4 + 4 + 2 + 4} if layout == "both" else {}
    extra = {".txt": 2, ".mat": 1} if layout == "unpacked kit" else {}
    assert found.ignored == copies | extra


def test_archives_in_a_bucket_list_like_local_ones() -> None:
    bucket = fsspec.filesystem("memory")
    for name, data in archives().items():
        bucket.pipe(f"/imagenet/{name}", data)
    assert facts(listing("memory://imagenet")) == expected()
    bucket.rm("/imagenet", recursive=True)


@pytest.mark.xdist_group("s3")
def test_archives_in_s3_do_too_and_one_that_shrank_is_told(s3: FaultProxy, tmp_path: Path) -> None:  # noqa: F811
    root = upload(place(tmp_path, archives()), "imagenet")
    found = listing(root)
    assert facts(found) == expected()
    name = "ILSVRC2012_img_val.tar"
    fsspec.filesystem("s3").pipe_file(f"{root}/{name}", archives()[name][:1000])
    errors = set()
    for source in found.sources[4:8]:
        with pytest.raises(SourceError) as failed:
            open_binary(source.uri)
        errors.add((failed.value.reason, failed.value.detail.split(" ", 3)[:3] == ["the", "archive", "ends"]))
    assert errors == {("open_error", True)}


def test_classes_have_the_words_of_the_kit(tmp_path: Path) -> None:
    assert listing(place(tmp_path, archives())).annotations["classes"].to_pylist() == [
        {"label": 0, "name": "n01000000", "words": "tench, Tinca tinca"},
        {"label": 1, "name": "n02000000", "words": "goldfish"},
        {"label": 2, "name": "n03000000", "words": "ébène"},
    ]


def test_val_labels_follow_the_devkit_not_the_sorted_names(tmp_path: Path) -> None:
    found = listing(place(tmp_path, archives()), split=("val",))
    labels = {row["source"][-13:]: row["label"] for row in found.annotations["labels"].to_pylist()}
    assert labels == {"00000001.JPEG": 2, "00000002.JPEG": 0, "00000003.JPEG": 0, "00000004.JPEG": 1}
    assert labels["00000001.JPEG"] != VAL_IDS[0] - 1


def test_a_part_of_the_archives_keeps_the_labels_of_the_kit(tmp_path: Path) -> None:
    files = {name: data for name, data in archives().items() if name in (KIT, "ILSVRC2012_img_val.tar")}
    assert [row[:3] for row in facts(listing(place(tmp_path, files)))] == [row[:3] for row in expected()[4:8]]


def test_labels_do_not_depend_on_the_chosen_split_without_a_kit_either(tmp_path: Path) -> None:
    files = {f"val/n03000000/{name}": data for name, data in val_images().items()}
    files["ILSVRC2012_img_train.tar"] = archives()["ILSVRC2012_img_train.tar"]
    assert {s.label for s in listing(place(tmp_path, files), split=("val",)).sources} == {2}


@pytest.mark.parametrize("where", ["the archive", "its folder", "an unpacked folder", "its data"])
def test_the_kit_may_lie_elsewhere(where: str, tmp_path: Path) -> None:
    files = archives()
    kit = place(tmp_path / "kit", {KIT: files.pop(KIT)} if where in ("the archive", "its folder") else kit_files())
    inner = {"the archive": KIT, "its folder": "", "an unpacked folder": "ILSVRC2012_devkit_t12"}
    annotations = kit / inner.get(where, "ILSVRC2012_devkit_t12/data")
    assert facts(listing(place(tmp_path / "root", files), annotations=str(annotations))) == expected()


def test_what_is_no_part_of_imagenet_is_counted(tmp_path: Path) -> None:
    more = {"ILSVRC2012_bbox_val_v3.tgz": b"x", "ILSVRC2012_img_train_t3.tar": tar_of({"a.JPEG": b"a"}), "a.gz": b""}
    assert listing(place(tmp_path, archives() | more)).ignored == {
        "(compressed tar)": 1, "(tar that is none of ImageNet-1k's)": 1, ".gz": 1,
    }  # fmt: skip


def test_archives_made_anew_or_unpacked_half_way_give_the_same_keys(tmp_path: Path) -> None:
    with_folders = {f"train/{wnid}.tar": tar_of(of_class(wnid)) for wnid in TRAIN}
    half_way = {f"ILSVRC2012_img_train/{name}": data for name, data in train_tars().items()}
    extracted = {f"train/{name}": data for name, data in train_images().items()}
    for number, files in enumerate((with_folders, half_way, with_folders | extracted)):
        found = listing(place(tmp_path / str(number), files))
        assert [row[:3] for row in facts(found)] == [row[:3] for row in expected()[:4]]
    assert found.ignored == {"(another copy of a listed image)": 4}


def test_kaggles_edition_is_read_as_it_unpacks(tmp_path: Path) -> None:
    files = {f"ILSVRC/Data/CLS-LOC/train/{name}": data for name, data in train_images().items()}
    files |= {f"ILSVRC/Data/CLS-LOC/val/{name}": data for name, data in val_images().items()}
    files |= {f"ILSVRC/Data/CLS-LOC/test/ILSVRC2012_test_{n:08d}.JPEG": jpeg(2000 + n) for n in (1, 2)}
    solution = "".join(f"ILSVRC2012_val_{n:08d},{wnid} 85 1 499 272 \n" for n, wnid in VAL.items())
    files["LOC_val_solution.csv"] = f"ImageId,PredictionString\n{solution}".encode()
    files["LOC_synset_mapping.txt"] = "".join(f"{wnid} {words}\n" for _, wnid, words in SYNSETS).encode()
    assert facts(listing(place(tmp_path, files))) == expected()


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    place(tmp_path, {"ILSVRC2012_img_train.tar.gz": b"", KIT: archives()[KIT]})
    assert "ILSVRC2012_img_train.tar.gz: a compressed tar" in refusal(tmp_path) and "gunzip" in refusal(tmp_path)


def test_flat_val_without_a_list_of_classes_names_the_kit(tmp_path: Path) -> None:
    files = {name: data for name, data in archives().items() if name != KIT}
    message = refusal(place(tmp_path, files))
    assert "the images lie flat" in message and f"get {KIT} from https://image-net.org" in message
    assert "--set datasets.mine.split=train" in message


def test_torchvisions_archives_are_read(media: Path) -> None:
    found = listing(media / "shards" / "imagenet_fake")
    assert [(s.key, s.label) for s in found.sources] == [
        ("train/n01440764/n01440764_18.JPEG", 0),
        ("train/n01443537/n01443537_2.JPEG", 1),
        ("train/n01484850/n01484850_17.JPEG", 2),
        ("val/n01440764/ILSVRC2012_val_00000002.JPEG", 0),
        ("val/n01443537/ILSVRC2012_val_00000003.JPEG", 1),
        ("val/n01484850/ILSVRC2012_val_00000001.JPEG", 2),
    ]
    assert found.annotations["classes"]["words"][1].as_py() == "goldfish, Carassius auratus" and not found.ignored


def official(media: Path) -> tuple[list[tuple[int, str, str]], list[int]]:
    """The kit's thousand classes, by a list of their ids, and the ids of all images, by a list of sorted indices."""
    lists = media / "annotations" / "imagenet"
    rows = [line.split() for line in (lists / "imagenet_folder_id_class.txt").read_text().splitlines()]
    synsets = [(int(number), wnid, words) for wnid, number, words in rows]
    wnids, number_of = sorted(wnid for _, wnid, _ in synsets), {wnid: number for number, wnid, _ in synsets}
    indices = (int(line.split()[1]) for line in (lists / "val.txt").read_text().splitlines())
    return synsets, [number_of[wnids[index]] for index in indices]


def test_the_real_ids_of_fifty_thousand_images_give_the_real_labels(media: Path, tmp_path: Path) -> None:
    synsets, ids = official(media)
    assert ids[:3] == [490, 361, 171]  # as the official file begins
    names = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3, 777, 50_000)]
    files = {"ILSVRC2012_img_val.tar": tar_of(dict.fromkeys(names, b"x")), "data/meta.mat": meta_mat(synsets)}
    files[f"data/{TRUTH}"] = "".join(f"{number}\n" for number in ids).encode()
    found = listing(place(tmp_path, files))
    sorted_indices = dict(line.split() for line in (media / "annotations/imagenet/val.txt").read_text().splitlines())
    assert {s.key.split("/")[2]: s.label for s in found.sources} == {n: int(sorted_indices[n]) for n in names}
    wnids = sorted(wnid for _, wnid, _ in synsets)
    plus_one = {number: index + 1 for index, wnid in enumerate(wnids) for number, w, _ in synsets if w == wnid}
    place(tmp_path, {f"data/{TRUTH}": "".join(f"{plus_one[number]}\n" for number in ids).encode()})
    assert "so its numbers are no ILSVRC2012_IDs" in refusal(tmp_path)


# Other lists of the classes of val


NAMES = [f"ILSVRC2012_val_{n:08d}" for n in VAL]
MAPPING = {"LOC_synset_mapping.txt": "".join(f"{wnid} {words}\n" for _, wnid, words in SYNSETS).encode()}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("val.txt", [f"{name}.JPEG {LABELS[wnid]}" for name, wnid in zip(NAMES, VAL.values(), strict=True)]),
        (TRUTH, [f"{name}.JPEG {LABELS[wnid]}" for name, wnid in zip(NAMES, VAL.values(), strict=True)]),
        ("imagenet_2012_validation_synset_labels.txt", [*VAL.values()]),
        (
            "LOC_val_solution.csv",
            [
                "ImageId,PredictionString",
                *(f"{name},{wnid} 85 1 499 272 {wnid} 1 2 3 4" for name, wnid in zip(NAMES, VAL.values(), strict=True)),
            ],
        ),
    ],
    ids=["caffe", "the kit's name, sorted indices", "wnids", "kaggle"],
)
def test_other_lists_that_leave_no_doubt_are_understood(name: str, lines: list[str], tmp_path: Path) -> None:
    files = {key: data for key, data in archives().items() if key != KIT} | MAPPING
    files[name] = "".join(f"{line}\r\n" for line in lines).encode()
    assert facts(listing(place(tmp_path, files))) == expected()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("1\n2\n0\n1\n", "has the number 0, so its numbers are no ILSVRC2012_IDs"),
        ("1\n2\n1001\n1\n", "has the number 1001"),
        ("1\n2\n900\n1\n", "has the number 900"),  # a group
        ("ILSVRC2012_val_00000001.JPEG 1\nILSVRC2012_val_00000002.JPEG 3\n", "does not count classes from 0"),
        ("ILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_00000002.JPEG 3\n", "class 3, the known ones are 0 to 2"),
        ("".join(f"{NAMES[i]}.JPEG {n}\n" for i, n in enumerate((489, 360, 170, 0))), "does not count classes from 0"),
        ("ILSVRC2012_val_00000001.JPEG 0\nILSVRC2012_val_00000001.JPEG 1\n", "names an image twice"),
        ("n01000000\n2\n", "WordNet ids in some lines and numbers in others"),
        ("hello\n", "begins 'hello'"),
        ("\n", "is empty"),
    ],
)
def test_a_list_that_may_mean_something_else_is_refused(lines: str, problem: str, tmp_path: Path) -> None:
    files = {name: data for name, data in archives().items() if name != KIT}
    files |= {"data/meta.mat": meta_mat(SYNSETS), f"data/{TRUTH}": lines.encode()}
    message = refusal(place(tmp_path, files))
    assert problem in message and KIT in message


def test_ids_without_the_kits_table_are_refused(tmp_path: Path) -> None:
    files = {name: data for name, data in archives().items() if name != KIT} | MAPPING
    message = refusal(place(tmp_path, files | {TRUTH: b"2\n3\n3\n1\n"}))
    assert "what they mean stands in the kit's meta.mat" in message


def test_an_image_that_the_list_does_not_reach_is_counted(tmp_path: Path) -> None:
    files = archives() | {KIT: tar_of(kit_files(VAL_IDS[:3]), mode="w:gz"), "val/strange.JPEG": b"x"}
    found = listing(place(tmp_path, files))
    assert len(found.sources) == len(expected()) - 1 and found.ignored == {"(val image without a class in the list)": 2}


# A kit from a stranger


def element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data


def nested(depth: int) -> bytes:
    """A cell array in a cell array, so many times."""
    data = b""
    for _ in range(depth):
        array = struct.pack("<IIII", 6, 8, 1, 0) + struct.pack("<IIii", 5, 8, 1, 1) + struct.pack("<II", 1, 0)
        data = element(14, array + data)
    return data


HEADER = meta_mat(SYNSETS)[:128]


@cache
def bomb() -> bytes:
    """A file whose one variable has 128 MiB when it is inflated."""
    return HEADER + element(15, zlib.compress(element(14, bytes(2**27)), 1))


@cache
def zip_bomb() -> bytes:
    return gzip.compress(bytes(2**27), 1)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (bomb, "more than 64 MiB when inflated"),
        (HEADER + nested(3000), "arrays in arrays, more than 8 deep"),
        (HEADER + element(15, zlib.compress(nested(3000))), "arrays in arrays, more than 8 deep"),
        (HEADER + element(15, b"no zlib"), "damaged"),
        (HEADER + b"\xff" * 64, "synsets cannot be read"),
        (HEADER, "synsets cannot be read"),
        (b"", "not a MATLAB 5 file"),
        (b"MATLAB" * 99, "not a MATLAB 5 file"),
    ],
    ids=range(8),  # one of them holds the time of day
)
def test_a_hostile_mat_file_is_a_value_error(content: bytes | Callable[[], bytes], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        load_variable(content if isinstance(content, bytes) else content(), "synsets")


@pytest.mark.parametrize("options", [{}, {"do_compression": True}])
def test_a_mat_file_reads_the_same_packed_or_not(options: dict[str, bool]) -> None:
    plain, packed = (load_variable(meta_mat(SYNSETS, **how), "synsets") for how in ({}, options))
    assert repr(plain) == repr(packed) and len(plain) == 4


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"no gzip", "does not unpack"),
        (zip_bomb, "more than 64 MiB unpacked"),
        (tar_of(kit_files(), mode="w:gz")[:-200], "does not unpack"),
        (tar_of({"x": b""}, mode="w:gz"), "no meta.mat in it"),
        (lambda: tar_of({"data/meta.mat": bomb()}, mode="w:gz"), "is not ImageNet's (more than 64 MiB"),
        (tar_of({"data/meta.mat": meta_mat([(1, "../../etc", "x")])}, mode="w:gz"), "a WNID that is none"),
    ],
    ids=["not gzip", "bomb", "cut", "empty", "bomb inside", "path for a class"],
)
def test_a_damaged_or_hostile_kit_is_one_error(
    content: bytes | Callable[[], bytes], problem: str, tmp_path: Path
) -> None:
    kit = content if isinstance(content, bytes) else content()
    message = refusal(place(tmp_path, archives() | {KIT: kit}))
    assert problem in message and f"{tmp_path}/{KIT}" in message


# ImageNet-21k


@pytest.mark.parametrize(
    "layout", ["tars", "one tar", "folders", "unpacked once", "folders in tars", "class folders in tars"]
)
def test_imagenet21k_gives_the_same_sources_in_every_layout(layout: str, tmp_path: Path) -> None:
    files = {
        "tars": train_tars(),
        "one tar": {"fall11_whole.tar": tar_of(train_tars())},
        "folders": train_images(),
        "unpacked once": {f"winter21_whole/{name}": data for name, data in train_tars().items()},
        "folders in tars": {"all.tar": tar_of({f"images/{name}": data for name, data in train_images().items()})},
        "class folders in tars": {f"{wnid}.tar": tar_of(of_class(wnid)) for wnid in TRAIN},
    }[layout]
    found = listing(place(tmp_path, files | {"readme.txt": b""}), "imagenet21k")
    rows = [(key.removeprefix("train/"), split, label, data) for key, split, label, data in expected()[:4]]
    assert facts(found) == rows and found.ignored == {".txt": 1}
    assert found.annotations["classes"]["name"].to_pylist() == sorted(TRAIN)


def test_imagenet21k_counts_copies_and_strangers_and_refuses_compressed_tars(tmp_path: Path) -> None:
    with_folders = {f"again/{wnid}.tar": tar_of(of_class(wnid)) for wnid in TRAIN}
    root = place(tmp_path / "a", with_folders | train_tars() | train_images() | {"cat.JPEG": b"x", "n0.tar.gz": b""})
    assert listing(root, "imagenet21k").ignored == {
        "(another copy of a listed image)": 8, "(in no folder or tar named by a WordNet id)": 1, "(compressed tar)": 1,
    }  # fmt: skip
    with pytest.raises(UserError, match=r"winter21_whole.tar.gz: a compressed tar .*\n.*gunzip"):
        listing(place(tmp_path / "b", {"winter21_whole.tar.gz": b""}), "imagenet21k")
    with pytest.raises(UserError, match="no images in folders or tars named by WordNet ids"):
        listing(place(tmp_path / "c", {"cat.JPEG": b"x"}), "imagenet21k")


# To the end


def test_archives_become_the_dataset_that_folders_become(tmp_path: Path) -> None:
    roots = {"archives": place(tmp_path / "archives", archives()), "folders": place(tmp_path / "folders", folders())}
    place(roots["folders"], {KIT: archives()[KIT]})
    ids = set()
    for name, root in roots.items():
        sets = [f"root={root}", "resolution=32", "views=2"]
        target = resolve(
            "imagenet1k", "dct-512", str(tmp_path / f"{name}-set"), tuple(f"datasets.imagenet1k.{s}" for s in sets), ()
        )
        result = tokenize(target.config, target.job, Options("local", quiet=True))
        assert result.failure is None
        ids.add(result.snapshot.value["dataset_id"])
    dataset = Dataset(tmp_path / "archives-set")
    rows = [(row.source, row.view, row.label) for row in dataset.rows()]
    assert sorted(rows) == sorted((key, view, label) for key, _, label, _ in expected() for view in (0, 1))
    assert set(dataset.splits) == {"train", "val", "test"}
    assert dataset.annotations("classes")["words"][0].as_py() == "tench, Tinca tinca" and len(ids) == 1


def test_words_of_classes_outlive_a_plan_that_grows(tmp_path: Path) -> None:
    root = place(
        tmp_path / "root", {name: data for name, data in folders().items() if "n02000000" not in name} | MAPPING
    )
    target = resolve("imagenet1k", "dct-512", str(tmp_path / "set"), (f"datasets.imagenet1k.root={root}",), ())
    store = open_store(tmp_path / "set")
    for _ in range(2):
        plans = extend_plans(store, target.job, list_sources(target.config), lambda sources: [1] * len(sources), None)
        place(root, folders())
    assert len(plans.files) == 2
    assert read_annotation(store, plans.annotations["classes"]).to_pylist() == [
        {"label": label, "name": wnid, "words": words}
        for label, (_, wnid, words) in enumerate(sorted(SYNSETS, key=lambda row: row[1]))
    ]
