"""Intervals of 95 %: of one accuracy, and of the difference of two scores of the same sources."""

import math
from collections.abc import Iterator

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054  # of LEVEL, two-sided
RESAMPLES = 10_000
_AT_ONCE = 1 << 23  # numbers drawn at a time


def wilson(correct: int, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share; sources are independent, so `count` is that of sources, not of windows."""
    if not count:
        return 0.0, 1.0
    share, z2 = correct / count, Z * Z / count
    centre = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired_bootstrap(a: np.ndarray, b: np.ndarray, seed: int = 0) -> tuple[float, tuple[float, float], float]:
    """(mean of a - b, its percentile interval, share of resamples above 0; ties count half).

    `a`, `b`: a score of the same sources in the same order, float [S]; whole sources are drawn, with their pair.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    means = np.concatenate(list(_resampled(difference, np.random.default_rng(seed))))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    above = float((means > 0).mean() + (means == 0).mean() / 2)
    return float(difference.mean()), (float(low), float(high)), above


def _resampled(values: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    rows = max(1, _AT_ONCE // len(values))
    for first in range(0, RESAMPLES, rows):
        drawn = rng.integers(0, len(values), (min(rows, RESAMPLES - first), len(values)), dtype=np.int32)
        yield values[drawn].mean(1)
