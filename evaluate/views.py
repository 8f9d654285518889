"""A labelled split as a probe sees it: windows of T frames, several of a source, each scored and then averaged.

    sources with a label -> runs -> windows, spread evenly over each run -> at most K of a source -> ids

Which windows there are follows from the per-source results; no shard is opened before its ids are asked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from toto.errors import UsageError, UserError
from toto.plain import ordinal
from toto.shards.dataset import Dataset
from toto.shards.row import windows_in


@dataclass(frozen=True)
class Views:
    """Windows of S labelled sources, V in all."""

    dataset: Dataset
    sources: list[str]
    labels: np.ndarray  # int64 [S]
    owner: np.ndarray  # int64 [V], the source of each window
    row: np.ndarray  # int64 [V], its row in the dataset
    start: np.ndarray  # int64 [V], its first frame in the row
    frames: int  # T
    stride: int  # stored frames from one to the next
    short: int  # sources without a full window: their last frame repeats

    def __len__(self) -> int:
        return len(self.row)

    def ids(self, i: int) -> np.ndarray:
        """int64 [1 + T*h*w]: the start id and the codes of window i; never the end id, which trained models may
        not know."""
        row = self.dataset.row(int(self.row[i])).record
        codes = row.tokens[1:-1].reshape(row.n_frames, -1)
        frames = np.minimum(self.start[i] + self.stride * np.arange(self.frames), row.n_frames - 1)
        return np.concatenate([row.tokens[:1], codes[frames].reshape(-1)]).astype(np.int64)

    def of(self, chosen: np.ndarray) -> np.ndarray:
        """int64: the windows of the sources that a mask [S] chooses."""
        return np.flatnonzero(chosen[self.owner])


def views_of(dataset: Dataset, labels: dict[str, int], frames: int, stride: int, most: int) -> Views:
    """At most `most` windows of every source with a label, for each of its stored crops; none is left out for being
    short. `stride` counts stored frames. UserError where nothing has a label."""
    results = dataset.sources().select(["key", "kind", "run_lengths", "rows"]).to_pylist()
    names: list[str] = []
    windows: list[np.ndarray] = []  # [n, 3]: source, row, start
    first_row = short = images = 0
    for source in results:
        if source["rows"] and source["key"] in labels:
            is_image = source["kind"] == "image"
            runs = np.array([1] if is_image else source["run_lengths"], np.int64)
            crops = source["rows"] // len(runs)
            picked = _pick(runs, frames, stride, most)
            short += int(runs.max() < (frames - 1) * stride + 1)
            images += is_image
            for crop in range(crops):
                rows = first_row + picked[:, 0] * crops + crop
                windows.append(np.column_stack([np.full(len(rows), len(names)), rows, picked[:, 1]]))
            names.append(source["key"])
        first_row += source["rows"]
    if not names:
        raise UserError(f"{dataset.store.uri}: no source of this split has a label; another --labels or split?")
    if images and frames > 1:
        problem = f"images among its labelled sources ({images:,} of {len(names):,}) have one frame"
        raise UsageError(f"{dataset.store.uri}: {problem}, not {frames}; give --frames 1, or --labels of the videos")
    owner, row, start = np.concatenate(windows).T
    known = np.array([labels[name] for name in names], np.int64)
    return Views(dataset, names, known, owner, row, start, frames, stride, short)


def stored_stride(dataset: Dataset, stride: int | None) -> int:
    """A stride in source frames as one in stored frames; UsageError where it does not divide. None: as stored."""
    stored = dataset.stored_stride
    if stride is None:
        return 1
    if not stored or stride % stored:
        has = f"every {ordinal(stored)} frame" if stored else "frames that are not one stride apart"
        raise UsageError(f"{dataset.store.uri} holds {has}: stride {stride} cannot be cut from it")
    return int(stride // stored)


def held_out(views: Views, share: float, seed: int) -> np.ndarray:
    """bool [S]: the sources on which layers and penalties are chosen, that share of every class (at least one where
    the class has two); a source's place depends on its key and the seed alone."""
    order = np.array([xxhash.xxh3_64_intdigest(name.encode(), seed % 2**64) for name in views.sources], np.uint64)
    chosen = np.zeros(len(views.sources), bool)
    for label in np.unique(views.labels):
        members = np.flatnonzero(views.labels == label)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        chosen[members[np.argsort(order[members], kind="stable")[:count]]] = True
    return chosen


def class_names(dataset: Dataset, table: str, labels: list[int]) -> list[str]:
    """A name for each label, from `classes` beside `labels` (`image_classes` beside `image_labels`), or its number."""
    beside = table.replace("labels", "classes")
    known: dict[Any, str] = {}
    if beside != table and beside in dataset.info["files"]["annotations"]:
        classes = dataset.annotations(beside)
        known = dict(zip(classes["label"].to_pylist(), classes["name"].to_pylist(), strict=True))
    return [known.get(label, str(label)) for label in labels]


def _pick(runs: np.ndarray, frames: int, stride: int, most: int) -> np.ndarray:
    """int64 [n, 2]: run and first frame of the windows of one source, in time's order."""
    span = (frames - 1) * stride + 1
    counts = windows_in(runs, frames, stride)
    if not counts.any():
        return np.array([[int(runs.argmax()), 0]])
    every = [
        [run, (length - span) * k // (count - 1) if count > 1 else (length - span) // 2]
        for run, (length, count) in enumerate(zip(runs.tolist(), counts.tolist(), strict=True))
        for k in range(count)
    ]
    at = [len(every) // 2] if most == 1 else np.linspace(0, len(every) - 1, min(most, len(every))).round().astype(int)
    return np.array([every[i] for i in at])
