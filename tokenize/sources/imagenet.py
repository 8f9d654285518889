"""ImageNet-1k: the official archives as they are downloaded, folders, or some of both.

    ILSVRC2012_img_train.tar                      a tar of <wnid>.tar; or train/<wnid>.tar, or train/<wnid>/*.JPEG
    ILSVRC2012_img_val.tar                        flat, or val/*.JPEG: classes from the development kit (imagenet_truth)
    val/<wnid>/*.JPEG                             sorted into folders
    ILSVRC2012_img_test_v10102019.tar, test/      without labels
    ILSVRC2012_devkit_t12.tar.gz, LOC_synset_mapping.txt
    ILSVRC/Data/CLS-LOC/{train,val,test}/         Kaggle's edition; its lists lie at the root

Keys are `train/<wnid>/<name>`, `val/<wnid>/<name>` and `test/<name>` in all of them. A class is its WordNet id, a label
the index among the sorted ids: of `LOC_synset_mapping.txt` or the kit when it is there (a part of ImageNet keeps the
official labels), else of all that are here.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, root_error
from toto.tokenize.sources.imagenet_devkit import ARCHIVE, WNID, read_devkit
from toto.tokenize.sources.imagenet_truth import IMAGE, read_truth
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import IMAGE_SUFFIXES, shown
from toto.tokenize.sources.tars import PACKED, find, members, packed_error

SPLITS = ("train", "val", "test")
MAPPING = "LOC_synset_mapping.txt"  # Kaggle's list: "n01440764 tench, Tinca tinca", one class a line
KAGGLE = "ILSVRC/Data/CLS-LOC/"
_OFFICIAL = re.compile(r"ILSVRC2012_img_(train|val|test)(?:_v\d+)?")  # their names, without .tar


@dataclass(frozen=True, slots=True)
class _Image:
    """An image and its place in the layout."""

    file: File
    split: str
    wnid: str | None  # None where it lies flat
    path: str  # below the split


def read(config: DatasetConfig) -> Listing:
    """All images of the chosen splits; `classes` has the words of each class where a list gives them.

    UserError when there are none, when `val` is flat and nothing tells its classes, or an archive is compressed.
    """
    splits = base.chosen_splits(config, SPLITS)
    devkit = read_devkit(config)
    words = _mapping(config) or dict(devkit.classes.values() if devkit else ())
    images, ignored = _images(config, splits if words else SPLITS)  # labels follow from all that is here
    here = sorted({image.wnid for image in images if image.wnid is not None})
    images = [image for image in images if image.split in splits]
    truth: dict[int, str] = {}
    if any(_is_flat_val(image) for image in images):
        truth = read_truth(config, sorted(words) or here, devkit)
        if not truth:
            raise _flat_val(config)
    wnids = sorted(words) or sorted({*here, *truth.values()})
    sources = list(_sources(images, truth, {wnid: label for label, wnid in enumerate(wnids)}, ignored))
    if not sources:
        raise root_error(config, f"no images in <split>/<wnid>/ for {', '.join(splits)}, and no official archives")
    sources = base.in_order(sources, SPLITS)
    classes = dict(enumerate(wnids))
    table = base.classes_table(classes)
    if words:
        table = table.append_column("words", pa.array([words[wnid] for wnid in wnids], pa.string()))
    return Listing(sources, {"labels": base.labels_table(sources, classes), "classes": table}, dict(+ignored))


def _images(config: DatasetConfig, splits: Sequence[str]) -> tuple[list[_Image], Counter[str]]:
    """All images that lie here as files, then those in the archives of some splits, and counts of the rest."""
    found = find(config, IMAGE_SUFFIXES)
    ignored = found.ignored
    packed = [file for file in found.packed if _archive_split(file) in splits]
    if packed and not found.files and not found.tars:
        raise packed_error(packed[0])
    ignored[PACKED] += sum(file.parts[-1] != ARCHIVE for file in found.packed)
    tars = [tar for tar in found.tars if _archive_split(tar) in splits]
    ignored["(tar that is none of ImageNet-1k's)"] += sum(_archive_split(tar) is None for tar in found.tars)
    files = chain(found.files, members(config, tars, IMAGE_SUFFIXES, ignored))
    return [image for file in files if (image := _place(file, ignored)) is not None], ignored


def _archive_split(tar: File) -> str | None:
    """The split that an archive holds, by its name: ILSVRC2012_img_train.tar, train/n01440764.tar; None for others."""
    name = tar.parts[-1].partition(".")[0]
    of_class = len(tar.parts) == 2 and WNID.fullmatch(name)
    place = tar.parts[0] if of_class else name
    official = _OFFICIAL.fullmatch(place)
    if official is not None:
        return official[1]
    return place if of_class and place in SPLITS else None


def _place(file: File, ignored: Counter[str]) -> _Image | None:
    """A file where it stands in the layout; None for what lies elsewhere, which is counted."""
    split, *below = parts = file.key.removeprefix(KAGGLE).split("/")
    for at, part in enumerate(parts[:-1]):
        if official := _OFFICIAL.fullmatch(part):
            split, below = official[1], parts[at + 1 :]
            below = below[1:] if below[0] == split else below  # the test archive has a folder test/
    below = below[1:] if below[:1] == below[1:2] else below  # a class's folder, tarred whole
    match below:
        case [wnid, *_, _] if split in SPLITS and WNID.fullmatch(wnid):
            return _Image(file, split, wnid, "/".join(below))
        case [name] if split in SPLITS[1:]:
            return _Image(file, split, None, name)
    ignored["(not in <split>/<wnid>/)"] += 1
    return None


def _is_flat_val(image: _Image) -> bool:
    return image.split == "val" and image.wnid is None


def _sources(
    images: Sequence[_Image], truth: Mapping[int, str], labels: Mapping[str, int], ignored: Counter[str]
) -> Iterator[Source]:
    """One source for each key, with its label: the first of several images."""
    seen: set[str] = set()
    for image in images:
        wnid, path, file = image.wnid, image.path, image.file
        if _is_flat_val(image):
            number = IMAGE.match(path)
            wnid = truth.get(int(number[1])) if number else None
            path = f"{wnid}/{path}"
        key = f"{image.split}/{path}"
        if wnid is None and image.split == "val":
            ignored["(val image without a class in the list)"] += 1
        elif wnid is not None and wnid not in labels:
            ignored[f"(class that {MAPPING} does not name)"] += 1
        elif key in seen:
            ignored["(another copy of a listed image)"] += 1
        else:
            seen.add(key)
            label = None if wnid is None else labels[wnid]
            yield Source(key, file.uri, "image", image.split, label, file.size, file.mtime_us, file.etag)


def _flat_val(config: DatasetConfig) -> UserError:
    where = f"datasets.{config.name}"
    return UserError(
        f"{where}: {shown(config.root)}/val: the images lie flat, so their classes are unknown\n"
        f"get {ARCHIVE} from https://image-net.org/download-images.php and put it beside them, "
        f"or name its place in {where}.annotations, or take train alone: --set {where}.split=train"
    )


def _mapping(config: DatasetConfig) -> dict[str, str]:
    """WordNet id -> words, of Kaggle's list; empty when it is not there."""
    for uri in find_lists(config, (".txt",)):
        if uri.endswith(f"/{MAPPING}"):
            pairs = (line.strip().partition(" ") for line in read_lines(uri) if line.strip())
            return {wnid: words for wnid, _, words in pairs}
    return {}
