"""Arrays of numbers, taken apart by value: what belongs to one shard, one record batch, one epoch."""

from collections.abc import Iterator

import numpy as np


def sorted_runs(values: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """The order int64 [k] that sorts an integer array [k], equal ones as they stand; and of each value (value, start,
    end): where it lies in that order."""
    if (values == values[:1]).all():  # one sequence, one part, one epoch, one phase: most calls
        return np.arange(len(values)), [(value, 0, len(values)) for value in values[:1].tolist()]
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    cuts = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(values)]
    return order, list(zip(ordered[cuts[:-1]].tolist(), cuts, cuts[1:], strict=False))


def unsorted(columns: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Columns [n, k] whose lines stand in such an order, put back."""
    found = np.empty_like(columns)
    found[:, order] = columns
    return found


def alike(values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Each value of an integer array [k] once, ascending, with the places where it stands, int64, ascending."""
    order, runs = sorted_runs(values)
    for value, start, end in runs:
        yield value, order[start:end]
