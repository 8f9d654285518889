"""Any folder of videos and images, mixed, however nested: one source per media file, all in the split "all".

    root/holiday/beach.mp4    root/holiday/2019/IMG_1.jpg    root/cat.gif

With `labels: folders` the first sub-folder is the class (`holiday`); files directly under the root have none.
"""

from collections.abc import Mapping, Sequence

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File, list_files, root_error
from toto.tokenize.sources.names import MEDIA_SUFFIXES, kind_of

SPLITS = ("all",)


def read(config: DatasetConfig) -> Listing:
    """All media files under the root; labels are indices into the sorted names of the first sub-folders.

    UserError when the root is not there or holds no media.
    """
    base.chosen_splits(config, SPLITS)
    files, ignored = list_files(config, MEDIA_SUFFIXES)
    if not files:
        raise root_error(config, f"no videos or images here ({ignored.total()} other files)")
    if config.labels == "none":
        return Listing([_source(file, None) for file in files], {}, dict(ignored))
    classes = dict(enumerate(sorted({file.parts[0] for file in files if len(file.parts) > 1})))
    sources = _labelled(files, classes)
    tables = {"labels": base.labels_table(sources, classes), "classes": base.classes_table(classes)}
    return Listing(sources, tables, dict(ignored))


def _labelled(files: Sequence[File], classes: Mapping[int, str]) -> list[Source]:
    label = {name: index for index, name in classes.items()}
    return [_source(file, label[file.parts[0]] if len(file.parts) > 1 else None) for file in files]


def _source(file: File, label: int | None) -> Source:
    kind = kind_of(file.key)
    return Source(file.key, file.uri, kind, SPLITS[0], label, file.size, file.mtime_us, file.etag)
