"""The entries of a part by number: windows of its videos, or its images. Views are no entries of their own.

    manifest -> entries of each shard -> entry i: shard, run, k-th window of the run -> start = phase + k * hop

How many there are follows from the manifest; which run holds one, from the per-source results of its shard.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from toto.errors import UsageError
from toto.plain import ordinal
from toto.shards.dataset import Dataset
from toto.shards.row import windows_in
from toto.shards.streaming.alike import sorted_runs, unsorted

KNOWN_SHARDS = 64  # whose runs are kept counted up, 32 bytes a run: more than one group of blocks touches


class Index(Protocol):
    """What counting and finding needs of a dataset: `toto.shards.dataset.Dataset` has it."""

    @property
    def views(self) -> int:
        """Rows of every run and image."""
        ...

    def window_counts(self, frames: int, stride: int = 1, hop: int | None = None) -> np.ndarray:
        """int64 [shards]: windows in the rows of each shard."""
        ...

    def image_counts(self) -> np.ndarray:
        """int64 [shards]: rows of each shard that are images."""
        ...

    def row_lengths(self, shard: int) -> np.ndarray:
        """Frames of each row of a shard, 0 for images."""
        ...


@dataclass(frozen=True)
class Cut:
    """How windows are cut from runs, in stored frames."""

    frames: int
    stride: int
    hop: int  # from one window's start to the next

    @property
    def span(self) -> int:
        """Stored frames from the first of a window to its last, both counted."""
        return (self.frames - 1) * self.stride + 1


def stored_cut(dataset: Dataset, frames: int, stride: int | None, hop: int) -> Cut:
    """The cut for a stride in source frames (None: as stored); `hop` counts frames of a window. UsageError where the
    stored frames do not have that stride."""
    if stride is None:
        return Cut(frames, 1, hop)
    settings, where = dataset.info["settings"], dataset.store.uri
    stored = dataset.stored_stride
    if stored is None and settings.get("stride"):
        raise UsageError(
            f"{where} holds frames beside every {ordinal(settings['stride'])} one, "
            f"for {', '.join(settings['protocols'])}: windows of one stride are in its split train alone; "
            "elsewhere its views name the frames"
        )
    if stored is None:
        how = next((f"{name} {settings[name]}" for name in ("fps", "uniform") if settings.get(name)), "no stride")
        raise UsageError(f"{where} was sampled by {how}: leave the stride {stride} out to take its frames as stored")
    if stride % stored:
        fitting = ", ".join(str(stored * n) for n in (1, 2, 3))
        raise UsageError(
            f"{where} holds every {ordinal(stored)} frame: stride {stride} cannot be had from it; {fitting} … can"
        )
    return Cut(frames, stride // stored, hop * (stride // stored))


@dataclass(frozen=True)
class Entry:
    """One window or image, before its view and its phase are drawn."""

    shard: int
    run: int  # number of the run, or image, in its shard
    k: int  # number of the window in its run
    slack: int  # stored frames that the windows of this run leave over


class Entries:
    """All windows of a dataset under a cut, or all its images where `cut` is None."""

    def __init__(self, index: Index, cut: Cut | None) -> None:
        self._index, self.cut = index, cut
        rows = index.image_counts() if cut is None else index.window_counts(cut.frames, cut.stride, cut.hop)
        counts = rows // index.views
        self._ends = np.cumsum(counts)
        self._begins = self._ends - counts
        self._runs = lru_cache(maxsize=KNOWN_SHARDS)(self._count_runs)

    @property
    def count(self) -> int:
        """How many there are: in one epoch each comes once."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, i: int) -> Entry:
        """Entry i of 0 … count-1, in the order in which they are stored."""
        return Entry(*(int(column[0]) for column in self.many(np.array([i]))))

    def many(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The columns of `Entry` for each of these entries, int64 [k] each; IndexError outside 0 … count-1."""
        if len(i) and not (0 <= i.min() and i.max() < self.count):
            raise IndexError(f"entries {i.min()} … {i.max()} of {self.count}")
        shards = np.searchsorted(self._ends, i, side="right")
        order, parts = sorted_runs(shards)
        inside, found = (i - self._begins[shards])[order], np.empty((3, len(i)), np.int64)
        for shard, start, end in parts:
            found[0, start:end], found[1, start:end], found[2, start:end] = self._runs(shard).find(inside[start:end])
        found[1] = inside - found[1]
        runs, k, slack = unsorted(found, order)
        return shards, runs, k, slack

    def _count_runs(self, shard: int) -> "_Alike | _Listed":
        lengths = self._index.row_lengths(shard)[:: self._index.views]
        same = len(lengths) > 0 and bool((lengths == lengths[0]).all())
        if same:
            lengths = lengths[:1]
        if self.cut is None:
            counts, slack = (lengths == 0).astype(np.int64), np.zeros(len(lengths), np.int64)
        else:
            counts = windows_in(lengths, self.cut.frames, self.cut.stride, self.cut.hop)
            slack = lengths.astype(np.int64) - self.cut.span - (counts - 1) * self.cut.hop
        if same and counts[0]:
            return _Alike(int(counts[0]), int(slack[0]))
        runs = np.flatnonzero(counts)
        ends = np.cumsum(counts[runs])
        return _Listed(ends, np.stack([runs, ends - counts[runs], slack[runs]]))


class _Alike(NamedTuple):
    """The runs of a shard, or its images, where all are alike."""

    each: int  # entries of a run
    slack: int

    def find(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Of the shard's i-th entries, int64 [k]: numbers of their runs, entries before those, frames left over."""
        runs = i // self.each
        return runs, runs * self.each, self.slack


class _Listed(NamedTuple):
    """The runs of a shard that hold entries, 32 bytes a run."""

    ends: np.ndarray  # int64 [runs]: entries up to and with each
    facts: np.ndarray  # int64 [3, runs]: numbers, entries before each, frames left over

    def find(self, i: np.ndarray) -> np.ndarray:
        """As `_Alike.find`, int64 [3, k]."""
        return self.facts[:, self.ends.searchsorted(i, side="right")]
