"""ImageNet-21k as it is downloaded: a folder of <wnid>.tar, one tar of them, or folders of images. No splits.

    root/n01440764.tar, n01443537.tar, …          winter21_whole, unpacked once
    root/fall11_whole.tar                         a tar of <wnid>.tar
    root/n01440764/*.JPEG                         or n01440764.tar with that folder in it

Keys are `<wnid>/<name>` in all of them; a label is the index among the sorted WordNet ids that are here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, root_error
from toto.tokenize.sources.imagenet_devkit import WNID
from toto.tokenize.sources.names import IMAGE_SUFFIXES
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.sources.tars import PACKED, find, members, packed_error

SPLITS = ("train",)


def read(config: DatasetConfig) -> Listing:
    """All images below a folder or in a tar with the name of a WordNet id; UserError when there are none."""
    base.chosen_splits(config, SPLITS)
    found = find(config, IMAGE_SUFFIXES)
    if found.packed and not found.files and not found.tars:
        raise packed_error(found.packed[0])
    ignored = found.ignored
    ignored[PACKED] += len(found.packed)
    numbers: dict[str, int] = {}  # of classes, as they are met
    files = chain(found.files, members(config, found.tars, IMAGE_SUFFIXES, ignored))
    every = SourceTable.of(_images(files, numbers, ignored))
    if not every:
        raise root_error(config, "no images in folders or tars named by WordNet ids")
    every.sort(SPLITS)
    sources, classes = every.first_of_each_key().with_sorted_classes(numbers)
    if len(sources) < len(every):
        ignored["(another copy of a listed image)"] += len(every) - len(sources)
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(+ignored))


def _images(files: Iterable[File], numbers: dict[str, int], ignored: Counter[str]) -> Iterator[Source]:
    """Those below a folder or in a tar with the name of a WordNet id, the last such, whose number is their label."""
    for file in files:
        place = max((at for at, part in enumerate(file.parts[:-1]) if WNID.fullmatch(part)), default=None)
        if place is None:
            ignored["(in no folder or tar named by a WordNet id)"] += 1
            continue
        wnid = file.parts[place]
        key, label = "/".join(file.parts[place:]), numbers.setdefault(wnid, len(numbers))
        yield Source(key, file.uri, "image", SPLITS[0], label, file.size, file.mtime_us, file.etag)
