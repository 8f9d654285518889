"""CATER's lists of labels, one folder for each task: lists/localize/train.txt …

    CATER_new_000012.avi 14              localize: one cell of 6×6 (localize_4x4 of 4×4, localize_8x8 of 8×8)
    CATER_new_000012.avi 0,2,11          actions_present, actions_order_uniq: every class that holds

`train_subsetT.txt` and `train_subsetV.txt` divide train 80 to 20, for settings to be chosen on V.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from toto.config import DatasetConfig
from toto.tokenize.sources.listed import absent, is_name, no_lists, these_splits
from toto.tokenize.sources.lists import find_lists, read_lines
from toto.tokenize.sources.names import escape

SPLITS = ("train", "val")
LOCALIZE = "localize"
TASKS = (LOCALIZE, "localize_4x4", "localize_8x8", "actions_present", "actions_order_uniq")
SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("subset", pa.string()),  # "T" or "V" of train
        ("labels", pa.list_(pa.int32())),
    ]
)
_FOLDERS = tuple(f"{folder}{task}" for task in TASKS for folder in ("lists/", "list/", ""))
_SUBSETS = {"train_subsetT": "T", "train_subsetV": "V"}


@dataclass(frozen=True, slots=True)
class Line:
    """One video of one list, as official code writes it."""

    task: str
    split: str
    video: str  # the file's name without suffix, escaped as keys are
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Lists:
    """Every line of every list, tasks in their order; and which part of train a video of a task is in."""

    found: dict[tuple[str, str], str]  # (task, name without suffix) -> the list
    lines: list[Line]
    subsets: dict[tuple[str, str], str]  # (task, video) -> "T" or "V"

    def splits(self, ignored: Counter[str]) -> dict[str, str]:
        """Video -> split over all tasks; where tasks disagree the first one counts."""
        splits: dict[str, str] = {}
        for line in self.lines:
            if splits.setdefault(line.video, line.split) != line.split:
                ignored["(line that puts a video into another split)"] += 1
        return splits

    def warnings(self, config: DatasetConfig, splits: Sequence[str]) -> tuple[str, ...]:
        """Of splits that no task has a list of; then of tasks without one of a split that others have."""
        listed = [split for split in splits if any((task, split) in self.found for task in TASKS)]
        wanted = [(LOCALIZE, [split for split in splits if split not in listed], "its videos are left out")]
        for task in TASKS:
            missing = [split for split in listed if (task, split) not in self.found]
            effect = "its videos have no label" if task == LOCALIZE else "its lines are not in the table `lists`"
            if task == LOCALIZE or any((task, split) in self.found for split in SPLITS):
                wanted.append((task, missing, effect))
        return tuple(
            absent(config, f"{these_splits(missing)} of {task}", [f"lists/{task}/{s}.txt" for s in missing], effect)
            for task, missing, effect in wanted
            if missing
        )

    def cells(self) -> dict[str, int]:
        """Video -> its one label of localize."""
        return {line.video: line.labels[0] for line in self.lines if line.task == LOCALIZE and len(line.labels) == 1}

    def table(self, videos: Sequence[str]) -> pa.Table:
        """The lines of these videos, as `SCHEMA`."""
        wanted = set(videos)
        lines = [line for line in self.lines if line.video in wanted]
        columns = (
            [line.task for line in lines],
            [line.video for line in lines],
            [line.split for line in lines],
            [self.subsets.get((line.task, line.video)) for line in lines],
            [line.labels for line in lines],
        )
        return pa.table(columns, schema=SCHEMA)


def read_lists(config: DatasetConfig, ignored: Counter[str]) -> Lists:
    """All lists of the set at the root; UserError when there are none."""
    found: dict[tuple[str, str], str] = {}
    for uri in find_lists(config, (".txt",), _FOLDERS):
        folder, name = uri.split("/")[-2:]
        if folder in TASKS:
            found.setdefault((folder, name.removesuffix(".txt")), uri)
    lists = [(task, split) for task in TASKS for split in SPLITS if (task, split) in found]
    if not lists:
        raise no_lists(config, f"lists/<task>/train.txt and val.txt of the tasks {', '.join(TASKS)}")
    lines = [line for task, split in lists for line in _lines(found[task, split], task, split, ignored)]
    subsets = {
        (task, line.video): _SUBSETS[name]
        for (task, name), uri in found.items()
        if name in _SUBSETS
        for line in _lines(uri, task, SPLITS[0], Counter())
    }
    return Lists(found, lines, subsets)


def _lines(uri: str, task: str, split: str, ignored: Counter[str]) -> Iterator[Line]:
    for text in filter(str.strip, read_lines(uri)):
        path, *labels = re.split(r"[,\s]+", text.strip(" \t,"))
        name = path.rsplit("/", 1)[-1]
        if is_name(name) and all(re.fullmatch(r"\d{1,6}", label) for label in labels):
            yield Line(task, split, escape(name.rpartition(".")[0] or name), tuple(map(int, labels)))
        else:
            ignored["(line of a list without a video)"] += 1
