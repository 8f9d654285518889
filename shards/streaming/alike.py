"""Arrays of numbers, taken apart by value: what belongs to one shard, one record batch, one epoch."""

from collections.abc import Iterator

import numpy as np


def alike(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each value of an integer array [k] once, ascending, with the places where it stands, int64, ascending."""
    if len(values) < 2:  # most calls, where few sequences are read at a time
        if len(values):
            yield int(values[0]), np.zeros(1, np.int64)
        return
    places = np.argsort(values, kind="stable")
    ordered = values[places]
    cuts = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(values)]
    for start, end in zip(cuts, cuts[1:], strict=False):
        yield int(ordered[start]), places[start:end]
