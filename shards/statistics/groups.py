"""Figures for each split or each label: sums of the per-source table, and the codes of each group by themselves."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from toto.shards.batch import Batch
from toto.shards.statistics.block import blocks
from toto.shards.statistics.contexts import bits_of_sums
from toto.shards.statistics.gram_counter import Counted, GramCounter, counts

ENTRIES = 1 << 22  # (group, code) pairs held in memory
SUMS = ("rows", "frames", "codes", "compared", "static")


class GroupCodes:
    """Counts (group, code) pairs; a group is a number from 0 on."""

    def __init__(self, groups: int, bits: int, folder: Path) -> None:
        self._bits = bits
        self._counter = GramCounter(max(1, (groups - 1).bit_length()) + bits, ENTRIES, folder)
        self._dtype = np.uint32 if groups << bits <= 1 << 32 else np.uint64

    def add(self, batch: Batch, group: np.ndarray, vocab_size: int) -> None:
        """`group`: int64 [rows of the batch]."""
        for block in blocks(batch, vocab_size):
            prefix = np.repeat(group[block.rows].astype(self._dtype) << self._bits, block.n_frames)
            self._counter.add((block.codes | prefix[:, None, None]).reshape(-1))

    def merge(self, counted: Counted) -> None:
        """Adds what another one counted."""
        self._counter.add_counted(counted)

    def finish(self, to_files: bool = False) -> Counted:
        """Everything added."""
        return self._counter.finish(to_files)

    def figures(self) -> dict[int, dict[str, float]]:
        """Group -> `codes_used` and `entropy_bits`."""
        used: dict[int, int] = {}
        total: dict[int, int] = {}
        logs: dict[int, float] = {}  # sum of count · log2(count)
        for keys, found in counts(self.finish(), ENTRIES):
            if not len(keys):
                continue
            owner = (keys >> np.uint64(self._bits)).astype(np.int64)
            starts = np.flatnonzero(np.append(True, owner[1:] != owner[:-1]))
            numbers = owner[starts].tolist()
            sums = np.add.reduceat(found, starts).tolist()
            weighted = np.add.reduceat(found * np.log2(found), starts).tolist()
            sizes = np.diff(starts, append=len(owner)).tolist()
            for i, group in enumerate(numbers):
                used[group] = used.get(group, 0) + sizes[i]
                total[group] = total.get(group, 0) + sums[i]
                logs[group] = logs.get(group, 0.0) + weighted[i]
        return {
            group: {
                "codes_used": used[group],
                "entropy_bits": bits_of_sums(total[group], logs[group]),
            }
            for group in used
        }


class GroupSums:
    """Sums of per-source tables for each value of `split` or `label`."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._sums: dict[Any, list[int]] = {}

    def add(self, table: pa.Table) -> None:
        """Takes a per-source table in."""
        grouped = table.group_by(self._column).aggregate([("source", "count"), *((name, "sum") for name in SUMS)])
        for line in grouped.to_pylist():
            new = [line["source_count"], *(line[f"{name}_sum"] for name in SUMS)]
            known = self._sums.get(line[self._column], [0] * len(new))
            self._sums[line[self._column]] = [a + b for a, b in zip(known, new, strict=True)]

    def lines(self) -> list[dict[str, Any]]:
        """A dictionary for each value, in the order of these; sources without a label come last."""
        ordered = sorted(self._sums, key=lambda value: (value is None, value))
        return [
            {self._column: value, **dict(zip(("sources", *SUMS), self._sums[value], strict=True))} for value in ordered
        ]
