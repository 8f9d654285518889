"""Rows of two sides by row id: equal, different, or in one side only; shards with the same content are not read.

row id + row hash (row_hash.py) of every row ─HashedRecords─▶ pairs of one row id
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toto.shards.batch import Batch
from toto.shards.row_hash import row_hashes
from toto.shards.statistics.hashed_records import HashedRecords

RECORD = np.dtype([("hash", "<u8"), ("high", "<u8"), ("low", "<u8"), ("side", "u1")])
MOST_RECORDS = 1 << 22
LOW = (1 << 64) - 1


@dataclass
class RowCounts:
    """How the rows of side a relate to those of side b."""

    equal: int = 0
    different: int = 0  # the same row id, other content
    only_a: int = 0
    only_b: int = 0


def row_records(batch: Batch, side: int) -> np.ndarray:
    """RECORD [rows]: `hash` is the first half of the row id, which is a hash itself (of two among 41 M rows alike:
    0.00005), `high` and `low` are the row's hash."""
    records = np.empty(batch.rows, RECORD)
    ids = np.frombuffer(b"".join(batch.arrow.column("row_id").to_pylist()), ">u8")[::2]
    hashes = row_hashes(batch.arrow)
    records["hash"] = ids
    records["high"] = [value >> 64 for value in hashes]
    records["low"] = [value & LOW for value in hashes]
    records["side"] = side
    return records


class RowMatcher:
    """Takes the records of both sides and counts."""

    def __init__(self, expected: int, folder: Path, most_records: int = MOST_RECORDS) -> None:
        self._records = HashedRecords(RECORD, expected, most_records, folder)
        self.add = self._records.add

    def count(self) -> RowCounts:
        """Of everything added. A row id that stands twice in one side is compared by its first row."""
        counts = RowCounts()
        for part in self._records.parts():
            sides = [part[part["side"] == side] for side in (0, 1)]
            (a_ids, a_first), (b_ids, b_first) = (np.unique(side["hash"], return_index=True) for side in sides)
            both, a_at, b_at = np.intersect1d(a_ids, b_ids, assume_unique=True, return_indices=True)
            a, b = sides[0][a_first[a_at]], sides[1][b_first[b_at]]
            equal = int(((a["high"] == b["high"]) & (a["low"] == b["low"])).sum())
            counts.equal += equal
            counts.different += len(both) - equal
            counts.only_a += len(a_ids) - len(both)
            counts.only_b += len(b_ids) - len(both)
        return counts
