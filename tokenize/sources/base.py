"""What every reader hands on: a `Listing` of `Source`s, the dataset's own annotations, what was left out.

A reader looks at names, sizes and lists, never into media: that is `decode`'s work.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError
from toto.lazy import cached_property

MISSING_SIZE = -1

LABELS = pa.schema([("source", pa.string()), ("split", pa.string()), ("label", pa.int32()), ("name", pa.string())])
CLASSES = pa.schema([("label", pa.int32()), ("name", pa.string())])


@dataclass(frozen=True, slots=True)
class Source:
    """One video or image of a dataset."""

    key: str  # relative to the dataset, posix, valid UTF-8, unique; never a URI or an absolute path
    uri: str  # where to read it: a local path (odd bytes are surrogates, as in `os`), or what fsspec opens
    kind: str  # "video" | "image", by layout and suffix
    split: str  # "all" for folder
    label: int | None
    size: int  # bytes; MISSING_SIZE when the official list names it but it is not there
    mtime_us: int = 0  # µs since 1970; 0 when the store does not say
    etag: str = ""
    moments: tuple[int, ...] | None = None  # ascending decoded frames: its row holds these alone


@dataclass(frozen=True)
class Listing:
    """All sources of a dataset in a fixed order: by split in the official order, then by key."""

    sources: list[Source]
    annotations: dict[str, pa.Table]  # "labels": LABELS and more columns; "classes": CLASSES
    ignored: dict[str, int]  # what was seen and left out: a suffix such as ".txt", or "(a reason)" -> count
    numbered: bool = False  # labels are numbers that the dataset's own files give, not the reader's

    @cached_property
    def by_key(self) -> dict[str, Source]:
        """The sources by their keys."""
        return {source.key: source for source in self.sources}


def chosen_splits(config: DatasetConfig, known: Sequence[str]) -> tuple[str, ...]:
    """The splits that a run takes, in the official order; UsageError for one that the layout has not."""
    for split in config.split:
        if split not in known:
            raise UsageError(f"datasets.{config.name}.split: {unknown('split', split, known)}")
    return tuple(split for split in known if not config.split or split in config.split)


def in_order(sources: Iterable[Source], splits: Sequence[str]) -> list[Source]:
    """Sources by split in the given order, then by key."""
    return sorted(sources, key=lambda source: (splits.index(source.split), source.key))


def labels_table(sources: Sequence[Source], classes: Mapping[int, str]) -> pa.Table:
    """source, split, label, name of every source; label and name are null where the dataset gives none."""
    return pa.table(
        [
            [source.key for source in sources],
            [source.split for source in sources],
            [source.label for source in sources],
            [None if source.label is None else classes[source.label] for source in sources],
        ],
        schema=LABELS,
    )


def classes_table(classes: Mapping[int, str]) -> pa.Table:
    """label, name of every class, in the order of labels."""
    return pa.table([sorted(classes), [classes[label] for label in sorted(classes)]], schema=CLASSES)
