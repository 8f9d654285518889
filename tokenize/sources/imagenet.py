"""ImageNet-1k as folders: `train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`; a flat `test/` has no labels.

A class is its WordNet id (`n01440764`), a label the index among the sorted ids: of `LOC_synset_mapping.txt`
when it is there (a part of ImageNet keeps the official labels), else of all folders of train and val.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, list_files, root_error
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import IMAGE_SUFFIXES, shown

SPLITS = ("train", "val", "test")
MAPPING = "LOC_synset_mapping.txt"  # Kaggle's list: "n01440764 tench, Tinca tinca", one class a line
_WNID = re.compile(r"n\d{8}")

Place = tuple[str, str | None]  # split, wnid or None for a flat file


def read(config: DatasetConfig) -> Listing:
    """All images of the chosen splits; UserError when there are none, or `val/` is flat (no labels)."""
    splits = base.chosen_splits(config, SPLITS)
    files, ignored = list_files(config, IMAGE_SUFFIXES)
    placed = [(file, place) for file in files if (place := _place(file, ignored)) is not None]
    if "val" in splits and any(place == ("val", None) for _, place in placed):
        raise _flat_val(config)
    wnids = _official_wnids(config) or sorted({wnid for _, (_, wnid) in placed if wnid is not None})
    sources = list(_sources(placed, splits, {wnid: i for i, wnid in enumerate(wnids)}, ignored))
    if not sources:
        raise root_error(config, f"no images in <split>/<wnid>/ for {', '.join(splits)}")
    sources = base.in_order(sources, SPLITS)
    classes = dict(enumerate(wnids))
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(ignored))


def _sources(
    placed: Sequence[tuple[File, Place]],
    splits: Sequence[str],
    labels: Mapping[str, int],
    ignored: Counter[str],
) -> Iterator[Source]:
    for file, (split, wnid) in placed:
        if split not in splits:
            continue
        if wnid is None or wnid in labels:
            label = None if wnid is None else labels[wnid]
            yield Source(file.key, file.uri, "image", split, label, file.size, file.mtime_us, file.etag)
        else:
            ignored[f"(class that {MAPPING} does not name)"] += 1


def _place(file: File, ignored: Counter[str]) -> Place | None:
    """Where a file stands in the layout; None for what lies elsewhere, which is counted."""
    match file.parts:
        case [split, wnid, *_, _] if split in SPLITS and _WNID.fullmatch(wnid):
            return split, wnid
        case [split, _] if split in SPLITS[1:]:
            return split, None
    ignored["(not in <split>/<wnid>/)"] += 1
    return None


def _flat_val(config: DatasetConfig) -> UserError:
    where = f"datasets.{config.name}"
    return UserError(
        f"{where}: {shown(config.root)}/val: the images lie flat, so their classes are unknown"
        f"\nmove them into val/<wnid>/ folders, or take train alone: --set {where}.split=train"
    )


def _official_wnids(config: DatasetConfig) -> list[str]:
    for uri in find_lists(config, (".txt",)):
        if uri.endswith(f"/{MAPPING}"):
            return sorted({line.split()[0] for line in read_lines(uri) if line.strip()})
    return []
