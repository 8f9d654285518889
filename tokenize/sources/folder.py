"""Any folder of videos and images, mixed, however nested: one source per media file, all in the split "all".

With `held_out: 0.1` a tenth of the sources goes to the split "val", the others to "train". A hash of its key decides
where a source goes, so a folder that grows moves none.

    root/holiday/beach.mp4    root/holiday/2019/IMG_1.jpg    root/cat.gif

With `labels: folders` the first sub-folder is the class (`holiday`); files directly under the root have none.
"""

from collections import Counter

import xxhash

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, each_file, nothing_here
from toto.tokenize.sources.names import MEDIA_SUFFIXES, kind_of
from toto.tokenize.sources.source_table import SourceTable

ALL, TRAIN, VAL = "all", "train", "val"


def read(config: DatasetConfig) -> Listing:
    """All media files under the root; labels are indices into the sorted names of the first sub-folders.

    UserError when the root is not there or holds no media.
    """
    splits = (TRAIN, VAL) if config.held_out else (ALL,)
    chosen = base.chosen_splits(config, splits)
    ignored: Counter[str] = Counter()
    numbers: dict[str, int] = {}  # of classes, as they are met
    files = each_file(config, MEDIA_SUFFIXES, ignored)
    sources = SourceTable.of(_source(file, config, numbers) for file in files)
    if not sources:
        raise nothing_here(config, "videos or images", ignored)
    sources.sort(splits)
    sources, again = sources.first_of_each_key(), len(sources)
    if len(sources) < again:  # web servers may list a name twice, written otherwise
        ignored["(another copy of a listed file)"] += again - len(sources)
    sources, classes = sources.of_splits(chosen).with_sorted_classes(numbers)
    if config.labels == "none":
        return Listing(sources, {}, dict(ignored))
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(ignored))


def split_of(key: str, held_out: float) -> str:
    """`train` or `val` by the key alone; `all` where nothing is held out."""
    if not held_out:
        return ALL
    return VAL if xxhash.xxh3_64_intdigest(key.encode()) < held_out * 2**64 else TRAIN


def _source(file: File, config: DatasetConfig, numbers: dict[str, int]) -> Source:
    split = split_of(file.key, config.held_out)
    has_class = config.labels == "folders" and len(file.parts) > 1
    label = numbers.setdefault(file.parts[0], len(numbers)) if has_class else None
    return Source(file.key, file.uri, kind_of(file.key), split, label, file.size, file.mtime_us, file.etag)
