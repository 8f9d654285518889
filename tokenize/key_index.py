"""Where each of many keys is: 12 bytes a key, by hashes, and exact all the same."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.schema import hashes_of_keys

AT_ONCE = 65_536  # keys that are Python's at one time


class KeyIndex:
    """Of a column of keys that are all different."""

    def __init__(self, keys: pa.ChunkedArray) -> None:
        self._keys = keys
        hashes = np.fromiter(_hashes(keys), np.uint64, len(keys))
        order = np.argsort(hashes)
        self._hashes, self._rows = hashes[order], order.astype(np.int32 if len(keys) < 2**31 else np.int64)

    def rows(self, keys: pa.ChunkedArray) -> np.ndarray:
        """int64 [k]: the row of each key; -1 where it is not there."""
        parts = [self._of(keys.slice(start, AT_ONCE)) for start in range(0, len(keys), AT_ONCE)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _of(self, keys: pa.ChunkedArray) -> np.ndarray:
        wanted = np.fromiter(_hashes(keys), np.uint64, len(keys))
        at = np.searchsorted(self._hashes, wanted)
        found = np.full(len(keys), -1, np.int64)
        while True:  # keys that share a hash stand side by side
            open_ = np.flatnonzero((found < 0) & (at < len(self._hashes)))
            open_ = open_[self._hashes[at[open_]] == wanted[open_]]
            if not len(open_):
                return found
            rows = self._rows[at[open_]]
            same = pc.equal(self._keys.take(pa.array(rows)), keys.take(pa.array(open_)).cast(self._keys.type))
            is_it = np.asarray(same.combine_chunks(), bool)
            found[open_[is_it]] = rows[is_it]
            at[open_[~is_it]] += 1


def _hashes(keys: pa.ChunkedArray) -> Iterator[int]:
    for start in range(0, len(keys), AT_ONCE):
        yield from hashes_of_keys(keys.slice(start, AT_ONCE).to_pylist()).tolist()
