"""Any folder of videos and images, mixed, however nested: one source per media file, all in the split "all".

With `held_out: 0.1` a tenth of the sources goes to the split "val", the others to "train". A hash of its key decides
where a source goes, so a folder that grows moves none.

    root/holiday/beach.mp4    root/holiday/2019/IMG_1.jpg    root/cat.gif

With `labels: folders` the first sub-folder is the class (`holiday`); files directly under the root have none.
"""

from collections.abc import Mapping, Sequence

import xxhash

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, list_files, root_error
from toto.tokenize.sources.names import MEDIA_SUFFIXES, kind_of

ALL, TRAIN, VAL = "all", "train", "val"


def read(config: DatasetConfig) -> Listing:
    """All media files under the root; labels are indices into the sorted names of the first sub-folders.

    UserError when the root is not there or holds no media.
    """
    splits = (TRAIN, VAL) if config.held_out else (ALL,)
    chosen = base.chosen_splits(config, splits)
    files, ignored = list_files(config, MEDIA_SUFFIXES)
    if not files:
        raise root_error(config, f"no videos or images here ({ignored.total()} other files)")
    if config.labels == "none":
        sources = [_source(file, None, config) for file in files]
        return Listing(_of(sources, chosen), {}, dict(ignored))
    classes = dict(enumerate(sorted({file.parts[0] for file in files if len(file.parts) > 1})))
    sources = _of(_labelled(files, classes, config), chosen)
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(ignored))


def split_of(key: str, held_out: float) -> str:
    """`train` or `val` by the key alone; `all` where nothing is held out."""
    if not held_out:
        return ALL
    return VAL if xxhash.xxh3_64_intdigest(key.encode()) < held_out * 2**64 else TRAIN


def _of(sources: Sequence[Source], splits: Sequence[str]) -> list[Source]:
    return base.in_order([source for source in sources if source.split in splits], splits)


def _labelled(files: Sequence[File], classes: Mapping[int, str], config: DatasetConfig) -> list[Source]:
    label = {name: index for index, name in classes.items()}
    return [_source(file, label[file.parts[0]] if len(file.parts) > 1 else None, config) for file in files]


def _source(file: File, label: int | None, config: DatasetConfig) -> Source:
    split = split_of(file.key, config.held_out)
    return Source(file.key, file.uri, kind_of(file.key), split, label, file.size, file.mtime_us, file.etag)
