"""Counts integer keys exactly in bounded memory: what n-grams and pairs of codes are counted with.

    keys ─sort, join equal ones─▶ entries (key, count) in one uint64, sorted ─join runs─▶ … ─too many─▶ file of entries
    runs and files ─ranges of keys─▶ (keys, counts), each key once

An entry holds its key in the high bits, so that sorting entries sorts by key. A count too large for the low bits
becomes several entries. Every file is sorted, so a range of keys is one slice of it: merging needs memory for one
range only. Measured on one core: 20-40 ns a key for new ones, 8 for a few frequent ones.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np

from toto.errors import UsageError, naming

CHUNK_KEYS = 1 << 22  # sorted at a time: 16 MiB of 32-bit keys
MOST_KEY_BITS = 56  # leaves counts up to 255 an entry
PROBES = 256  # entries of each run that say where ranges should be cut


def key_dtype(bits: int) -> np.dtype:
    """uint32 while keys fit, which sorts twice as fast, else uint64; UsageError above 56 bits."""
    if bits > MOST_KEY_BITS:
        raise UsageError(f"keys of {bits} bits; {MOST_KEY_BITS} is the most: count shorter n-grams")
    return np.dtype(np.uint32 if bits <= 32 else np.uint64)


@dataclass
class Counted:
    """Sorted runs of entries, in memory and in files; a key may stand in several."""

    key_bits: int
    arrays: list[np.ndarray] = field(default_factory=list)  # uint64
    files: list[Path] = field(default_factory=list)

    @property
    def runs(self) -> Iterator[np.ndarray]:
        """Every run, one after the other; those in files are mapped while they are looked at."""
        yield from self.arrays
        yield from (np.memmap(path, np.uint64, "r") for path in self.files)

    @property
    def entries(self) -> int:
        """In all runs."""
        return sum(map(len, self.arrays)) + sum(path.stat().st_size // 8 for path in self.files)


class GramCounter:
    """Adds up keys of `key_bits` bits; at most about 3 · 8 · `most_entries` bytes, beyond which it writes files."""

    def __init__(self, key_bits: int, most_entries: int, folder: Path) -> None:
        key_dtype(key_bits)
        self._bits, self._most, self._folder = key_bits, max(1, most_entries), folder
        self._waiting: list[np.ndarray] = []
        self._waiting_keys = 0
        self._runs: list[np.ndarray] = []
        self._files: list[Path] = []
        self._joining_pays = True  # whether joined runs became much shorter the last time

    def add(self, keys: np.ndarray) -> None:
        """Keys uint32 or uint64 [n], all of one dtype; the array is not kept past a few calls, and not changed."""
        self._waiting.append(keys)
        self._waiting_keys += len(keys)
        if self._waiting_keys >= min(CHUNK_KEYS, self._most):
            self._digest()

    def add_counted(self, counted: Counted) -> None:
        """What another counter of the same keys counted."""
        self._files += counted.files
        for run in counted.arrays:
            self._take(run)

    def finish(self, to_files: bool = False) -> Counted:
        """Everything added; nothing may be added after. `to_files` leaves nothing large in memory."""
        self._digest()
        if to_files and sum(map(len, self._runs)) > CHUNK_KEYS // 8:
            if self._joining_pays:
                self._join()
            self._spill()
        return Counted(self._bits, self._runs, self._files)

    def _digest(self) -> None:
        if not self._waiting_keys:
            return
        keys = np.concatenate(self._waiting)
        self._waiting.clear()
        self._waiting_keys = 0
        keys.sort()
        starts = _group_starts(keys)
        self._take(_entries(keys[starts], np.diff(starts, append=len(keys)), self._bits))

    def _take(self, run: np.ndarray) -> None:
        self._runs.append(run)
        held = sum(map(len, self._runs))
        if held <= self._most:
            return
        if self._joining_pays:
            self._join()
            self._joining_pays = len(self._runs[0]) <= held // 2
        if not self._joining_pays:
            self._spill()

    def _join(self) -> None:
        if len(self._runs) > 1:
            self._runs = [_entries(*_joined(self._runs, self._bits), self._bits)]

    def _spill(self) -> None:
        for run in self._runs:
            path = self._folder / f"{uuid4().hex}.entries"
            with naming(path):
                run.tofile(path)
            self._files.append(path)
        self._runs = []


def key_ranges(counted: Counted, most_entries: int) -> list[tuple[int, int]]:
    """Ranges [low, high) of keys that cover all and hold about `most_entries` entries each, or fewer."""
    parts = -(-counted.entries // most_entries)
    if parts <= 1:
        return [(0, 1 << counted.key_bits)]
    shift = np.uint64(64 - counted.key_bits)
    # each probe stands for as many entries as any other, so that long runs have more of them
    step = max(1, counted.entries // (PROBES * parts))
    samples = [np.array(run[min(step // 2, len(run) - 1) :: step]) for run in counted.runs if len(run)]
    probes = np.sort(np.concatenate(samples)) >> shift
    cuts = np.unique(probes[np.linspace(0, len(probes), parts + 1).astype(int)[1:-1]]).tolist()
    return list(pairwise([0, *cuts, 1 << counted.key_bits]))


def counts_in(counted: Counted, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys uint64 in [low, high), ascending, and how often each was added, int64."""
    shift = 64 - counted.key_bits
    slices = []
    for run in counted.runs:
        start = np.searchsorted(run, np.uint64(low << shift))
        end = np.searchsorted(run, np.uint64(high << shift)) if high < 1 << counted.key_bits else len(run)
        slices.append(np.array(run[start:end]))
    return _joined(slices, counted.key_bits)


def counts(counted: Counted, most_entries: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every key with its count, range by range, in ascending order."""
    for low, high in key_ranges(counted, most_entries):
        yield counts_in(counted, low, high)


def _joined(runs: Sequence[np.ndarray], bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of entries -> keys uint64, ascending, and counts int64, each key once."""
    entries = np.concatenate([*runs, np.empty(0, np.uint64)])
    if len(runs) > 1:
        entries.sort()
    shift = np.uint64(64 - bits)
    keys = entries >> shift
    entries &= (np.uint64(1) << shift) - np.uint64(1)
    starts = _group_starts(keys)
    if len(starts) == len(keys):
        return keys, entries.view(np.int64)
    below = np.cumsum(entries, out=entries)  # three times as fast as np.add.reduceat
    return keys[starts], np.diff(below[np.append(starts[1:], len(keys)) - 1].view(np.int64), prepend=0)


def _entries(keys: np.ndarray, counts: np.ndarray, bits: int) -> np.ndarray:
    """Sorted entries; keys ascend and are different."""
    shift = 64 - bits
    most = min((1 << shift) - 1, 1 << 62)
    keys = keys.astype(np.uint64)
    if len(counts) and counts.max() > most:
        full, rest = np.divmod(counts, most)
        keys = np.concatenate([np.repeat(keys, full), keys[rest > 0]])
        counts = np.concatenate([np.full(int(full.sum()), most), rest[rest > 0]])
        order = np.argsort(keys, kind="stable")
        keys, counts = keys[order], counts[order]
    return keys << np.uint64(shift) | counts.astype(np.uint64)


def _group_starts(keys: np.ndarray) -> np.ndarray:
    """int64: where a new key begins in a sorted array."""
    new = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return np.flatnonzero(new)
