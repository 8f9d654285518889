"""What must hold in a manifest, whoever wrote it: its numbers follow from one another, and readers count on them.

Whole columns at a time: a million units of 150 batches take 0.3 s.
"""

import numpy as np
import pyarrow as pa

from toto.errors import UserError
from toto.shards.untrusted.structure import MAX_BATCH_ROWS

MOST_ROWS = 1 << 28  # of one unit; their ids alone would take 4 GiB
MOST_FRAMES = 65_535  # of a run


def check_manifest(manifest: pa.Table, name: str) -> pa.Table:
    """The same table, where its columns rows, bytes, images, path, batch_rows and runs_by_length agree; UserError,
    naming it, where they do not."""
    rows, images, nbytes = (one_chunk(manifest[column]).to_numpy() for column in ("rows", "images", "bytes"))
    shards = one_chunk(manifest["path"]).is_valid().to_numpy(zero_copy_only=False)
    batches, runs = one_chunk(manifest["batch_rows"]), one_chunk(manifest["runs_by_length"])
    sizes, lengths, counts = _values(batches, batches.values), _values(runs, runs.keys), _values(runs, runs.items)
    wrong = {
        "sizes or rows of no number that a shard has": (rows < 0) | (rows > MOST_ROWS) | (images < 0) | (nbytes < 0),
        "rows without a shard, or a shard without rows": shards != (rows > 0),
        "a batch of an impossible number of rows": (sizes == 0) | (sizes > MAX_BATCH_ROWS),
        "batches of other rows together than it has": _sums(sizes, batches) != rows,
        "a run of an impossible length": (lengths == 0) | (lengths > MOST_FRAMES) | (counts > MOST_ROWS),
        "runs of other rows together than it has": _sums(counts, runs) + images != rows,
    }
    broken = next((what for what, units in wrong.items() if units.any()), None)
    if broken is not None:
        raise UserError(f"{name}: no manifest that toto wrote (a unit has {broken})")
    return manifest


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column of a table as one array."""
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _values(lists: pa.Array, every: pa.Array) -> np.ndarray:
    """The values of all lists; Arrow's own array of them may hold more."""
    offsets = lists.offsets.to_numpy()
    return every.to_numpy()[offsets[0] : offsets[-1]]


def _sums(values: np.ndarray, lists: pa.Array) -> np.ndarray:
    """int64: the sum of the values of each list."""
    offsets = lists.offsets.to_numpy()
    starts, filled = offsets[:-1] - offsets[0], offsets[1:] > offsets[:-1]
    sums = np.zeros(len(starts), np.int64)
    if filled.any():
        sums[filled] = np.add.reduceat(values, starts[filled], dtype=np.int64)
    return sums
