"""ImageNet-21k as it is downloaded: a folder of <wnid>.tar, one tar of them, or folders of images. No splits.

    root/n01440764.tar, n01443537.tar, …          winter21_whole, unpacked once
    root/fall11_whole.tar                         a tar of <wnid>.tar
    root/n01440764/*.JPEG

Keys are `<wnid>/<name>` in all of them; a label is the index among the sorted WordNet ids that are here.
"""

from dataclasses import replace
from itertools import chain

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import root_error
from toto.tokenize.sources.imagenet_devkit import WNID
from toto.tokenize.sources.names import IMAGE_SUFFIXES
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
    images: dict[str, Source] = {}
    for file in chain(found.files, members(config, found.tars, IMAGE_SUFFIXES, ignored)):
        place = next((at for at, part in enumerate(file.parts[:-1]) if WNID.fullmatch(part)), None)
        if place is None:
            ignored["(in no folder or tar named by a WordNet id)"] += 1
            continue
        key = "/".join(file.parts[place:])
        source = Source(key, file.uri, "image", SPLITS[0], None, file.size, file.mtime_us, file.etag)
        if images.setdefault(key, source) is not source:
            ignored["(another copy of a listed image)"] += 1
    if not images:
        raise root_error(config, "no images in folders or tars named by WordNet ids")
    classes = dict(enumerate(sorted({key.partition("/")[0] for key in images})))
    label = {wnid: number for number, wnid in classes.items()}
    sources = [replace(images[key], label=label[key.partition("/")[0]]) for key in sorted(images)]
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(+ignored))
