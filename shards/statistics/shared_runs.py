"""Shingles of two sides -> runs of frames that both hold: which sources, which frames, how long.

A pair of equal shingles whose neighbours are equal too lies inside a shared run; the others begin or end one. So
memory holds two records for each shared run of two rows, however long it is.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toto.shards.statistics.gram_counter import GramCounter, counts
from toto.shards.statistics.hashed_records import HashedRecords
from toto.shards.statistics.shingles import RECORD

MOST_RECORDS = 1 << 22  # in memory at a time, of 44 bytes
MOST_PAIRS = 1 << 12  # of one shingle: what stands in more places, as an intro does, is counted but not paired
MOST_ENDS = 1 << 22  # of shared runs
NEVER = np.iinfo(np.int64).max
IMAGE_PLACE = np.uint64(0xFFFF)  # no shingle of moving frames begins at a row's last possible frame
ENDS = [(f"{name}_{side}", RECORD[name]) for side in "ab" for name in ("source", "row", "place", "first", "last")]
PAIR = np.dtype([*ENDS, ("image", "?")])
RUN = np.dtype(
    [
        *((f"{name}_{side}", RECORD[name]) for side in "ab" for name in ("source", "row", "first", "last")),
        ("frames", "<u4"),  # moving ones
        ("image", "?"),
    ]
)


@dataclass
class Shared:
    """What two sides share."""

    runs: np.ndarray = field(default_factory=lambda: np.empty(0, RUN))
    sources: tuple[np.ndarray, np.ndarray] = (np.empty(0, np.uint64), np.empty(0, np.uint64))  # by hash, of each side
    frames: tuple[int, int] = (0, 0)  # moving frames and images of each side that the other one holds too
    one_key: int = 0  # shared runs of sources that have the same key in both sides; `runs` has the others
    common: int = 0  # shingles in too many places to pair
    whole: bool = True  # whether `runs` holds all


class RunFinder:
    """Takes shingles of both sides (0 and 1) and finds the shared runs."""

    def __init__(self, frames: int, expected: int, folder: Path, most_records: int = MOST_RECORDS) -> None:
        self._frames = frames
        self._records = HashedRecords(RECORD, expected, most_records, folder)
        self._matched = [GramCounter(48, most_records, folder) for _ in range(2)]
        self._most = most_records
        self.add = self._records.add

    def find(self) -> Shared:
        """The runs that were added to both sides; nothing may be added after."""
        found = Shared()
        begins, ends = [np.empty(0, PAIR)], [np.empty(0, PAIR)]
        for part in self._records.parts():
            sides = [part[part["side"] == side] for side in (0, 1)]
            both = np.intersect1d(sides[0]["hash"], sides[1]["hash"])
            a, b = (side[np.isin(side["hash"], both, kind="sort")] for side in sides)
            found.sources = (_union(found.sources[0], a["source"]), _union(found.sources[1], b["source"]))
            for counter, matched in zip(self._matched, (a, b), strict=True):
                counter.add(_place_keys(matched))
            left, right, common = _pairs(a, b)
            found.common += common
            for kept, name in ((begins, "before"), (ends, "after")):
                edge = (a[name][left] != b[name][right]) | (a[name][left] == 0)
                one_key = a["source"][left] == b["source"][right]
                found.one_key += int((edge & one_key).sum()) if name == "before" else 0
                edge &= ~one_key
                kept.append(_paired(a[left[edge]], b[right[edge]]))
            found.whole &= sum(map(len, ends)) <= MOST_ENDS
            begins, ends = ([np.concatenate(kept)[:MOST_ENDS]] for kept in (begins, ends))
        found.runs = _joined(begins[0], ends[0], self._frames)
        found.frames = (self._covered(0), self._covered(1))
        return found

    def _covered(self, side: int) -> int:
        """Frames that matched shingles cover, each once."""
        covered, last = 0, None
        for keys, _ in counts(self._matched[side].finish(), self._most):
            if not len(keys):
                continue
            image = (keys & np.uint64(0xFFFF)) == IMAGE_PLACE
            covered += int(image.sum())
            videos = keys[~image].astype(np.int64)
            if len(videos):
                steps = np.diff(videos, prepend=-self._frames if last is None else last)
                covered += int(steps.clip(max=self._frames).sum())
                last = int(videos[-1])
        return covered


def _place_keys(records: np.ndarray) -> np.ndarray:
    """uint64: row and place; ascending keys are neighbours in the run."""
    place = np.where(records["image"], IMAGE_PLACE, records["place"].astype(np.uint64))
    return records["row"].astype(np.uint64) << np.uint64(16) | place


def _pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Numbers of the records of each equal pair, and how many hashes had too many."""
    hashes, a_counts = np.unique(a["hash"], return_counts=True)
    b_counts = np.unique(b["hash"], return_counts=True)[1]  # of the same hashes
    few = a_counts * b_counts <= MOST_PAIRS
    a_starts, b_starts = np.cumsum(a_counts) - a_counts, np.cumsum(b_counts) - b_counts
    sizes = (a_counts * b_counts)[few]
    group = np.repeat(np.flatnonzero(few), sizes)
    within = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    left = a_starts[group] + within // b_counts[group]
    right = b_starts[group] + within % b_counts[group]
    return left, right, int(len(hashes) - few.sum())


def _paired(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    pairs = np.empty(len(a), PAIR)
    for name in ("source", "row", "place", "first", "last"):
        pairs[f"{name}_a"], pairs[f"{name}_b"] = a[name], b[name]
    pairs["image"] = a["image"]
    return pairs


def _joined(begins: np.ndarray, ends: np.ndarray, frames: int) -> np.ndarray:
    """RUN: each begin with its end, the first one at or after it on the same diagonal of the same two rows.

    Where one of them is missing, because its shingle stands in too many places, the run is one shingle long.
    """
    begin_key, end_key = _line_keys(begins, ends)
    begins, begin_key = _by_key(begins, begin_key)
    ends, end_key = _by_key(ends, end_key)
    at = np.searchsorted(end_key, begin_key)
    end = np.append(end_key, NEVER)[at]
    closed = (end < np.append(begin_key[1:], NEVER)) & (end >> 16 == begin_key >> 16)
    unused = np.ones(len(ends), bool)
    unused[at[closed]] = False
    shorter = np.concatenate([begins[~closed], ends[unused]])
    return np.concatenate(
        [_runs(begins[closed], ends[at[closed]], frames + (end - begin_key)[closed]), _runs(shorter, shorter, frames)]
    )


def _line_keys(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 for each record: which two rows and which diagonal in the high bits, the place in side a's row below."""
    both = np.concatenate([begins, ends])
    rows = both["row_a"].astype(np.uint64) << np.uint64(32) | both["row_b"]
    _, row_pair = np.unique(rows, return_inverse=True)
    diagonal = both["place_a"].astype(np.int64) - both["place_b"] + (1 << 16)
    _, line = np.unique(row_pair.astype(np.int64) << 17 | diagonal, return_inverse=True)
    keys = line.astype(np.int64) << 16 | both["place_a"]
    return keys[: len(begins)], keys[len(begins) :]


def _by_key(records: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    return records[order], keys[order]


def _runs(begins: np.ndarray, ends: np.ndarray, frames: np.ndarray | int) -> np.ndarray:
    runs = np.empty(len(begins), RUN)
    for side in "ab":
        for name in ("source", "row", "first"):
            runs[f"{name}_{side}"] = begins[f"{name}_{side}"]
        runs[f"last_{side}"] = ends[f"last_{side}"]
    runs["frames"] = np.where(begins["image"], 1, frames)
    runs["image"] = begins["image"]
    return runs


def _union(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.union1d(known, new)


def source_pairs(runs: np.ndarray) -> list[dict[str, Any]]:
    """Source hashes of both sides with their shared frames and longest run's place in `runs`; most frames first."""
    if not len(runs):
        return []
    order = np.lexsort((-runs["frames"].astype(np.int64), runs["source_b"], runs["source_a"]))
    ordered = runs[order]
    new = np.append(True, (np.diff(ordered["source_a"]) != 0) | (np.diff(ordered["source_b"]) != 0))
    starts = np.flatnonzero(new)
    frames = np.add.reduceat(ordered["frames"].astype(np.int64), starts)
    sizes = np.diff(starts, append=len(ordered))
    best = np.argsort(-frames, kind="stable")
    return [{"frames": int(frames[i]), "runs": int(sizes[i]), "longest": int(order[starts[i]])} for i in best.tolist()]
