"""How codes follow one another: 1-, 2- and 3-grams of a dataset's frames (the paper's Figs. 3, 12 and 13).

    codes [frames, h, w] ─n neighbours, packed in one integer─▶ keys ─GramCounter─▶ counts ─▶ spectrum ─▶ figures

The paper plots the distribution of the n-grams of 10,000 ImageNet validation pictures for each tokenizer. It does not
say what follows what. Here: `raster`, the default, takes a frame's codes as the one sequence that a model reads, so
that a row's last code and the next row's first one are neighbours; `rows` takes each row of the grid by itself.
No n-gram crosses frames.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.shards.dataset import Dataset
from toto.shards.statistics.block import blocks
from toto.shards.statistics.gram_counter import MOST_KEY_BITS, Counted, GramCounter, counts_in, key_dtype, key_ranges
from toto.shards.statistics.reading import Task, batches_of, plan
from toto.shards.statistics.spectrum import Spectrum
from toto.shards.workers import each

WRAPS = ("raster", "rows")
MEMORY_MB = 1024  # of one process, about
JOIN_BYTES, HELD_BYTES = 72, 16  # an entry: while runs are joined, which one counter does at a time; and before
TOP = 10  # most frequent n-grams that are named


@dataclass(frozen=True)
class Settings:
    """What is counted, and with how much memory."""

    sizes: tuple[int, ...] = (1, 2, 3)
    wrap: str = "raster"
    memory_mb: int = MEMORY_MB

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or len(set(self.sizes)) < len(self.sizes):
            raise UsageError(f"n-grams of {', '.join(map(str, self.sizes))} codes: give different numbers from 1 on")
        if self.wrap not in WRAPS:
            raise UsageError(f"wrap {self.wrap!r}: known are {', '.join(WRAPS)}")

    @property
    def entries(self) -> int:
        """Different n-grams that one counter holds in memory."""
        return (self.memory_mb << 20) // (JOIN_BYTES + HELD_BYTES * len(self.sizes))


@dataclass(frozen=True)
class TaskCount:
    """What one task found."""

    frames: int
    codes: int
    grams: dict[int, Counted]


def count_ngrams(
    uri: str | Path,
    settings: Settings = Settings(),  # noqa: B008
    split: str | None = None,
    sample: int | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The n-grams of a dataset as data: of each n how many occur, differ, occur once, their entropy, their curve.

    `sample` reads so many record batches, drawn by the dataset's id; else every one. `progress` is told rows read and
    rows in all. UserError, UsageError.
    """
    reading = plan(uri, split, sample, workers=workers)
    vocab_size = reading.dataset.tokenizer["vocab_size"]
    bits = code_bits(vocab_size)
    if (most := MOST_KEY_BITS // bits) < max(settings.sizes):
        raise UsageError(
            f"n-grams of {max(settings.sizes)} codes: {most} is the most for a vocabulary of {vocab_size:,}"
        )
    with TemporaryDirectory(prefix="toto-ngrams-", ignore_cleanup_errors=True) as folder:
        counters = {n: GramCounter(n * bits, settings.entries, Path(folder)) for n in settings.sizes}
        progress(0, reading.rows)
        frames = codes = done = 0
        make = partial(_Counting, reading.open, settings, Path(folder), workers > 1)
        for task, found in each(make, reading.tasks, workers):
            frames, codes, done = frames + found.frames, codes + found.codes, done + task.rows
            for n, counted in found.grams.items():
                counters[n].add_counted(counted)
            progress(done, reading.rows)
        grams = {str(n): _facts(counters[n].finish(), n, vocab_size, settings, workers) for n in sorted(settings.sizes)}
    return {**reading.facts(), "wrap": settings.wrap, "frames": frames, "codes": codes, "grams": grams}


def code_bits(vocab_size: int) -> int:
    """Bits that hold any code."""
    return max(1, (vocab_size - 1).bit_length())


def frame_ngrams(codes: np.ndarray, n: int, bits: int, wrap: str) -> np.ndarray:
    """Codes [F, h, w] -> every n-gram as an integer, the first code in the high bits: uint32 or uint64 [many]."""
    frames, height, width = codes.shape
    lines = codes.reshape(frames * height, width) if wrap == "rows" else codes.reshape(frames, height * width)
    count = max(0, lines.shape[1] - n + 1)
    keys = lines[:, :count].astype(key_dtype(n * bits))
    for i in range(1, n):
        keys <<= bits
        keys |= lines[:, i : i + count]
    return keys.reshape(-1)


def unpacked(key: int, n: int, bits: int) -> list[int]:
    """The codes of an n-gram."""
    return [key >> bits * i & (1 << bits) - 1 for i in reversed(range(n))]


def top_keys(keys: np.ndarray, counts: np.ndarray, least: int) -> list[tuple[int, int]]:
    """(key, count) of the most frequent, at most TOP; `least` is the count of the last of them. Ties: lower keys."""
    places = np.append(np.flatnonzero(counts > least), np.flatnonzero(counts == least)[:TOP])
    return list(zip(keys[places].tolist(), counts[places].tolist(), strict=True))


class _Counting:
    """Counts tasks; one in each process."""

    def __init__(self, open_dataset: Callable[[], Dataset], settings: Settings, folder: Path, to_files: bool) -> None:
        self._dataset, self._settings, self._folder, self._to_files = open_dataset(), settings, folder, to_files

    def __call__(self, task: Task) -> TaskCount:
        vocab_size = self._dataset.tokenizer["vocab_size"]
        bits = code_bits(vocab_size)
        counters = {n: GramCounter(n * bits, self._settings.entries, self._folder) for n in self._settings.sizes}
        frames = codes = 0
        for _, batch in batches_of(self._dataset, task):
            for block in blocks(batch, vocab_size):
                frames, codes = frames + len(block.codes), codes + block.codes.size
                for n, counter in counters.items():
                    counter.add(frame_ngrams(block.codes, n, bits, self._settings.wrap))
        return TaskCount(frames, codes, {n: counter.finish(self._to_files) for n, counter in counters.items()})


def _facts(counted: Counted, n: int, vocab_size: int, settings: Settings, workers: int) -> dict[str, Any]:
    """The figures of one n."""
    ranges = key_ranges(counted, settings.entries // workers)
    if not counted.files:
        workers = 1  # sending arrays to other processes takes longer than merging them here
    parts = [part for _, part in each(partial(_Merging, counted), ranges, workers)]
    spectrum = Spectrum.sum(part for part, _ in parts)
    top = sorted((line for _, lines in parts for line in lines), key=lambda line: (-line[1], line[0]))[:TOP]
    possible = vocab_size**n
    return {
        "possible": possible,
        "coverage": spectrum.distinct / possible,
        **spectrum.facts(),
        "top": [{"codes": unpacked(key, n, code_bits(vocab_size)), "count": count} for key, count in top],
        "curve": spectrum.curve(),
    }


class _Merging:
    """Adds up one range of keys after the other; one in each process."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __call__(self, edges: tuple[int, int]) -> tuple[Spectrum, list[tuple[int, int]]]:
        keys, counts = counts_in(self._counted, *edges)
        spectrum = Spectrum.of(counts)
        if not spectrum.distinct:
            return spectrum, []
        least = spectrum.at_rank(np.array([min(TOP, spectrum.distinct)]))
        return spectrum, top_keys(keys, counts, int(least[0]))
