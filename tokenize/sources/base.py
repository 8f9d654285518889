"""What every reader hands on: a `Listing` of `Source`s, the dataset's own annotations, what was left out.

A reader looks at names, sizes and lists, never into media: that is `decode`'s work.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError
from toto.tokenize.sources.source import MISSING_SIZE as MISSING_SIZE
from toto.tokenize.sources.source import Source as Source
from toto.tokenize.sources.source_table import SourceTable, strings

LABELS = pa.schema([("source", pa.string()), ("split", pa.string()), ("label", pa.int32()), ("name", pa.string())])
CLASSES = pa.schema([("label", pa.int32()), ("name", pa.string())])


@dataclass(frozen=True)
class Listing:
    """All sources of a dataset in a fixed order: by split in the official order, then by key."""

    sources: Sequence[Source]  # of `list_sources` a SourceTable
    annotations: dict[str, pa.Table]  # "labels": LABELS and more columns; "classes": CLASSES
    ignored: dict[str, int]  # what was seen and left out: a suffix such as ".txt", or "(a reason)" -> count
    numbered: bool = False  # labels are numbers that the dataset's own files give, not the reader's
    warnings: tuple[str, ...] = ()  # a line each on an official list that is not there, see listed.absent


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
    given = SourceTable.of(sources).columns
    numbers = pa.array(list(classes), pa.int32())
    names = pc.take(pa.array(list(classes.values()), pa.string()), pc.index_in(given["label"], value_set=numbers))
    columns = [strings(given["key"]), given["split"].cast(pa.string()), given["label"], names]
    return pa.table(columns, schema=LABELS)


def classes_table(classes: Mapping[int, str]) -> pa.Table:
    """label, name of every class, in the order of labels."""
    return pa.table([sorted(classes), [classes[label] for label in sorted(classes)]], schema=CLASSES)
