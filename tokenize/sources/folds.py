"""Datasets with three official divisions into train and test, of which `fold` picks one (the first by default).

    clips by key, with their part in each fold + files -> sources of that fold, `labels`, `classes`, `folds`

`folds` says of each source where it stands in all three (UCF101's folds divide the same clips, so one set of shards
serves all of them): source, fold1, fold2, fold3 ("train", "test", or null for not used) and group (of clips cut from
one recording; null where that is unknown).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from toto.config import DatasetConfig
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.files import File
from toto.tokenize.sources.listed import Shelf, absent, check_found, listed_source, stem

TRAIN, TEST = SPLITS = ("train", "test")
FOLDS = (1, 2, 3)
_TABLE = pa.schema([("source", pa.string()), *((f"fold{fold}", pa.string()) for fold in FOLDS), ("group", pa.int32())])


@dataclass
class Clip:
    """One video of the lists; its key is `<class>/<name without suffix>`."""

    label: int
    group: int | None = None
    folds: dict[int, str] = field(default_factory=dict)  # fold -> "train" or "test"


def fold_of(config: DatasetConfig) -> int:
    """The chosen fold."""
    return config.fold or FOLDS[0]


def fold_listing(
    config: DatasetConfig,
    clips: Mapping[str, Clip],
    classes: Mapping[int, str],
    files: Sequence[File],
    ignored: Counter[str],
) -> Listing:
    """The chosen splits of the chosen fold; clips that it does not use are counted. UserError when none is here.

    Files are found by their name alone, in whatever folder and case: `HandstandPushups/v_HandStandPushups_…`.
    """
    chosen, fold = base.chosen_splits(config, SPLITS), fold_of(config)
    shelf = Shelf(files, lambda file: stem(file).casefold())
    sources = []
    for key, clip in clips.items():
        split = clip.folds.get(fold)
        file = shelf.take(key.rsplit("/", 1)[-1].casefold(), f"{key}.avi")
        if split is None:
            ignored[f"(not used in fold {fold})"] += 1
        elif split in chosen:
            sources.append(listed_source(config, key, file, split, clip.label, ".avi"))
    shelf.count_left(ignored)
    check_found(config, sources)
    sources = base.in_order(sources, SPLITS)
    tables = {
        "labels": base.labels_table(sources, classes),
        "classes": base.classes_table(classes),
        "folds": _folds(sources, clips),
    }
    return Listing(sources, tables, dict(ignored))


def absent_lists(config: DatasetConfig, missing: Mapping[int, Sequence[str]]) -> tuple[str, ...]:
    """A line on lists of the chosen fold that are not there, and one on those of other folds; fold -> their names."""
    mine, lines = fold_of(config), []
    if names := missing.get(mine):
        lines.append(absent(config, f"fold {mine}", names, "their clips are left out"))
    others = [fold for fold in missing if fold != mine and missing[fold]]
    if names := [name for fold in others for name in missing[fold]]:
        folds = f"{'fold' if len(others) == 1 else 'folds'} {', '.join(map(str, others))}"
        lines.append(absent(config, folds, names, "the table `folds` has null for their clips there"))
    return tuple(lines)


def _folds(sources: Sequence[Source], clips: Mapping[str, Clip]) -> pa.Table:
    listed = [clips[source.key] for source in sources]
    columns = [[source.key for source in sources], *([clip.folds.get(fold) for clip in listed] for fold in FOLDS)]
    return pa.table([*columns, [clip.group for clip in listed]], schema=_TABLE)
