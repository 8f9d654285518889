"""How often things occur -> how many things occur that often: a few numbers that decide every figure of a distribution.

n-grams with counts 5, 1, 1, 2 have the spectrum {1: 2, 2: 1, 5: 1}. Rank-frequency curve, coverage, entropy and the
share that occurs once follow from it exactly; its length is at most √(2 · occurrences).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.lazy import cached_property

TOP_SHARES = (0.001, 0.01, 0.1, 0.5)  # of the distinct things, most frequent first
CURVE_POINTS = 160
FEW = 1 << 12


@dataclass(frozen=True)
class Spectrum:
    """`times[i]` things occur `counts[i]` times each; counts descend."""

    counts: np.ndarray  # int64
    times: np.ndarray  # int64

    @staticmethod
    def of(counts: np.ndarray) -> "Spectrum":
        """From the count of each thing; zeros do not occur."""
        few = np.bincount(counts[counts < FEW], minlength=FEW)  # ten times as fast as sorting
        small = np.flatnonzero(few[1:]) + 1
        large, times = np.unique(counts[counts >= FEW], return_counts=True)
        values, times = np.append(small, large), np.append(few[small], times)
        return Spectrum(values[::-1].astype(np.int64), times[::-1].astype(np.int64))

    @staticmethod
    def sum(parts: Iterable["Spectrum"]) -> "Spectrum":
        """Of different things."""
        parts = list(parts)
        counts = np.concatenate([part.counts for part in parts] or [np.empty(0, np.int64)])
        times = np.concatenate([part.times for part in parts] or [np.empty(0, np.int64)])
        values, place = np.unique(counts, return_inverse=True)
        total = np.zeros(len(values), np.int64)
        np.add.at(total, place, times)
        return Spectrum(values[::-1], total[::-1])

    @property
    def occurrences(self) -> int:
        """All of them, each as often as it occurs."""
        return int((self.counts * self.times).sum())

    @property
    def distinct(self) -> int:
        """Things that occur at all."""
        return int(self.times.sum())

    @property
    def once(self) -> int:
        """Things that occur once."""
        return int(self.times[self.counts == 1].sum())

    @property
    def entropy_bits(self) -> float:
        """Shannon's, of the observed shares; too low where there are few occurrences for each thing."""
        total = self.occurrences
        if not total:
            return 0.0
        shares = self.counts / total
        return float(-(self.times * shares * np.log2(shares)).sum()) + 0.0

    @property
    def inverse_simpson(self) -> float:
        """1 / Σp²: how many equally frequent things would meet as often by chance."""
        total = self.occurrences
        return float(1 / (self.times * (self.counts / total) ** 2).sum()) if total else 0.0

    def covered(self, top: np.ndarray | int) -> np.ndarray:
        """float64: share of the occurrences that the `top` most frequent things hold."""
        block = np.searchsorted(self._ranks, top, side="left").clip(max=max(0, len(self.counts) - 1))
        before_rank = np.append(0, self._ranks)[block]
        before = np.append(0, np.cumsum(self.counts * self.times))[block]
        return (before + (np.minimum(top, self.distinct) - before_rank) * self.counts[block]) / self.occurrences

    def at_rank(self, rank: np.ndarray) -> np.ndarray:
        """int64: how often the thing of each rank occurs; 1 is the most frequent."""
        return self.counts[np.searchsorted(self._ranks, rank, side="left")]

    def curve(self, points: int = CURVE_POINTS) -> dict[str, list[Any]]:
        """Ranks, evenly spread on a logarithmic axis, with the count there and the share covered up to there."""
        if not self.distinct:
            return {"rank": [], "count": [], "covered": []}
        ranks = np.unique(np.geomspace(1, self.distinct, points).round().astype(np.int64))
        return {
            "rank": ranks.tolist(),
            "count": self.at_rank(ranks).tolist(),
            "covered": [round(share, 9) for share in self.covered(ranks).tolist()],
        }

    def facts(self) -> dict[str, Any]:
        """The figures as data."""
        top = {str(share): max(1, round(share * self.distinct)) for share in TOP_SHARES}
        bits = self.entropy_bits
        return {
            "occurrences": self.occurrences,
            "distinct": self.distinct,
            "once": self.once,
            "once_share": self.once / self.distinct if self.distinct else 0.0,
            "entropy_bits": bits,
            "perplexity": 2**bits,
            "inverse_simpson": self.inverse_simpson,
            "covered_by_top": {share: float(self.covered(k)) for share, k in top.items()} if self.distinct else {},
        }

    @cached_property
    def _ranks(self) -> np.ndarray:
        """int64: the last rank of each count."""
        return np.cumsum(self.times)
