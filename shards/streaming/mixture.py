"""Which part of a mixture the g-th sequence comes from, and how many of that part came before it.

    weights 2, 1, 1, 6  ->  a table of 10 slots: 3 0 3 1 3 2 3 3 0 3  ->  part of g, earlier ones of that part

The table is a smooth weighted round-robin: every W sequences hold each part exactly as often as its weight says, and
no part waits longer than it must. Counts of any stretch are differences of closed forms, so none is ever negative.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from toto.errors import UsageError
from toto.shards.streaming.alike import alike

MOST_WEIGHT = 10_000  # that people give
MOST_SEQUENCES = 1 << 48  # of a run: a thousand a second for 9,000 years; their images too have numbers of 64 bits
MOST_SLOTS = 2 * MOST_WEIGHT  # of a phase: where weights were split between videos and images


@dataclass(frozen=True)
class Phase:
    """Weights that hold from a sequence on."""

    from_sequence: int
    weights: tuple[int, ...]  # one for each part; 0 leaves a part out


class Mixture:
    """The parts of an endless stream, by phases; the last phase has no end."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        check_phases(phases)
        self._starts = np.array([phase.from_sequence for phase in phases])
        self._tables = [_Table(phase.weights) for phase in phases]
        before = np.zeros(len(phases[0].weights), np.int64)
        self._before = [before]
        for table, length in zip(self._tables, np.diff(self._starts).tolist(), strict=False):
            before = before + table.counts(length)
            self._before.append(before)

    def at(self, g: int) -> tuple[int, int]:
        """Part of the g-th sequence, and how many sequences of that part come before it."""
        parts, earlier = self.many(np.array([g]))
        return int(parts[0]), int(earlier[0])

    def many(self, g: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [k] -> int64 [k] each: the parts of these sequences, and how many of that part come before each."""
        _check_range(int(g.min(initial=0)), int(g.max(initial=0)))
        parts, earlier = np.empty_like(g), np.empty_like(g)
        for phase, mine in alike(np.searchsorted(self._starts, g, side="right") - 1):
            parts[mine], inside = self._tables[phase].many(g[mine] - self._starts[phase])
            earlier[mine] = self._before[phase][parts[mine]] + inside
        return parts, earlier

    def counts(self, g: int) -> np.ndarray:
        """int64 [parts]: sequences of each part among the first g."""
        phase = self._phase(g)
        return self._before[phase] + self._tables[phase].counts(g - self._starts[phase])

    def _phase(self, g: int) -> int:
        _check_range(g, g)
        return int(np.searchsorted(self._starts, g, side="right")) - 1


def _check_range(first: int, last: int) -> None:
    if first < 0:
        raise IndexError(f"sequence {first}; the first is 0")
    if last >= MOST_SEQUENCES:
        raise IndexError(f"sequence {last}; the last is {MOST_SEQUENCES - 1:,}")


def check_phases(phases: Sequence[Phase]) -> None:
    """UsageError unless the phases start at 0, follow one another, and have whole weights with a sum of 1 … 20,000."""
    starts = [phase.from_sequence for phase in phases]
    if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
        raise UsageError(f"phases from sequences {starts}: the first starts at 0, each later one after the one before")
    if starts[-1] >= MOST_SEQUENCES:
        raise UsageError(f"a phase from sequence {starts[-1]}: no run has more than {MOST_SEQUENCES:,}")
    for phase in phases:
        total = sum(phase.weights)
        if len(phase.weights) != len(phases[0].weights):
            raise UsageError(f"weights {list(phase.weights)}: every phase names a weight for every part")
        if min(phase.weights, default=-1) < 0 or not 1 <= total <= MOST_SLOTS:
            raise UsageError(
                f"weights {list(phase.weights)}: whole numbers, 0 or more, with a sum of 1 to {MOST_SLOTS:,}"
            )


class _Table:
    """One phase: W slots."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = np.array(weights, np.int64) // gcd(*weights)
        self._slots = _smooth_round_robin(self._weights)
        self._earlier = np.zeros(len(self._slots), np.int64)  # slots of the same part before this one
        for part in range(len(weights)):
            mine = self._slots == part
            self._earlier[mine] = np.arange(mine.sum())

    def many(self, i: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turns, slots = np.divmod(i, len(self._slots))
        parts = self._slots[slots]
        return parts, turns * self._weights[parts] + self._earlier[slots]

    def counts(self, i: int) -> np.ndarray:
        turns, slot = divmod(i, len(self._slots))
        return turns * self._weights + np.bincount(self._slots[:slot], minlength=len(self._weights))


def _smooth_round_robin(weights: np.ndarray) -> np.ndarray:
    """int64 [W]: every slot goes to the part that is furthest behind its share, the first of several."""
    total = int(weights.sum())
    behind = np.zeros_like(weights)
    slots = np.empty(total, np.int64)
    for slot in range(total):
        behind += weights
        slots[slot] = part = int(behind.argmax())
        behind[part] -= total
    return slots
