"""A few sources of a dataset to look at: of every class where there are classes, else from all over the list.

Of a few videos the one in which most tokens change is taken: a random crop often misses what moves.
"""

from collections import defaultdict
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from toto.shards.dataset import Dataset, Row
from toto.shards.look.clips import Pick

WINDOW_FRAMES = 16  # the paper's clip (§3.4)
LOOKED_AT = {"video": 4, "image": 1}  # candidates for each example


def examples(dataset: Dataset, kind: str, most: int) -> list[Pick]:
    """The first frames (at most 16) of up to `most` sources of a kind ("video" or "image")."""
    used = _used(dataset, kind)
    long = [source for source in used if source["run_lengths"][0] >= WINDOW_FRAMES]
    groups = _groups(long if len(long) >= most else used, most)
    rows = (max((dataset.frames(key)[0] for key in group[: LOOKED_AT[kind]]), key=_changes) for group in groups)
    return [Pick("", row, np.arange(min(row.record.n_frames, WINDOW_FRAMES))) for row in rows]


def class_names(dataset: Dataset) -> dict[str, str]:
    """Source key -> name of its class, from every annotation table that names them."""
    names: dict[str, str] = {}
    for table in map(dataset.annotations, dataset.info["annotations"]):
        if {"source", "name"} <= set(table.column_names):
            pairs = zip(table["source"].to_pylist(), table["name"].to_pylist(), strict=True)
            names |= {source: name for source, name in pairs if name}
    return names


def _used(dataset: Dataset, kind: str) -> list[dict[str, Any]]:
    table = dataset.sources().select(["key", "kind", "status", "label", "rows", "run_lengths"])
    return [s for s in table.to_pylist() if s["kind"] == kind and s["status"] == "ok" and s["rows"]]


def _groups(sources: list[dict[str, Any]], most: int) -> list[list[str]]:
    """Up to `most` groups of keys, none in two of them: one of each label, then a second of each, and so on."""
    by_label: dict[int, list[str]] = defaultdict(list)
    for source in sources:
        by_label[-1 if source["label"] is None else source["label"]].append(source["key"])
    share = -(-most // max(1, len(by_label)))
    parts = [np.array_split(keys, min(share, len(keys))) for _, keys in sorted(by_label.items())]
    turns = chain.from_iterable(zip_longest(*parts))
    return [group.tolist() for group in turns if group is not None][:most]


def _changes(row: Row) -> int:
    """Codes that differ from those of the frame before, over the first 16 frames."""
    codes = row.codes[:WINDOW_FRAMES]
    return int((codes[1:] != codes[:-1]).sum())
