"""Actors that die, or are out of reach, for a reason that is no source's: work is given out again, but not for ever.

    a unit lost its tokenizer actor ─▶ a pause ─▶ the unit again ─▶ … ─▶ at a number, for it or in a row: UserError

Ray has sent a block to a tokenizer actor four times, and started that actor anew each time, before one death is told
here. Deaths of workers are blame.py's; those of nodes are never counted.
"""

from collections import Counter

from toto.errors import UserError
from toto.tokenize.units import Unit

MOST = {"tokenizer": 4, "connection": 10}  # of one unit, or of each worker in a row while no unit is done
ADVICE = {
    "tokenizer": "its device may have too little memory, or be broken: try --set tokenizers.NAME.device=cpu, "
    "or another GPU",
    "connection": "the network between the nodes, or a node that has too much to do; run again, it goes on",
}
NAMES = {"tokenizer": "tokenizer actor", "connection": "connection to its worker"}
SOURCES_SHOWN = 3


class Losses:
    """Counts by unit, and in a row; says how long to wait before the next try."""

    def __init__(self) -> None:
        self._of: Counter[tuple[str, str | None]] = Counter()  # what died, unit id (None: it was getting ready)
        self._first: dict[tuple[str, str | None], int] = {}  # units that were done when that died first
        self._row: Counter[str] = Counter()  # since a unit was done last
        self._passed = 0

    def passed(self) -> None:
        """A unit was done."""
        self._passed += 1
        self._row.clear()

    def is_ready(self, what: str) -> None:
        """One came up: deaths before it say nothing any more."""
        self._of.pop((what, None), None)

    def lost(self, what: str, unit: Unit | None, cause: str, workers: int = 1) -> float:
        """Counts a death of "tokenizer" or "connection"; seconds to wait. UserError when it was one too many."""
        name = (what, unit.id if unit else None)
        self._first.setdefault(name, self._passed)
        self._of[name] += 1
        self._row[what] += 1
        if self._of[name] >= MOST[what] or self._row[what] >= MOST[what] * workers:
            raise UserError(self._words(what, unit, cause))
        tries = max(self._of[name], self._row[what] / workers)
        return float(min(0.5 * 2**tries, 10.0)) / workers  # they all wait for this one driver

    def _words(self, what: str, unit: Unit | None, cause: str) -> str:
        last = f"the last time: {cause}\n{ADVICE[what]}"
        if unit is None:
            return f"a {NAMES[what]} died {self._of[what, None]} times before it was ready; {last}"
        held, times, others = self._held(unit), self._of[what, unit.id], self._passed - self._first[what, unit.id]
        if others:
            return (
                f"{held} lost its {NAMES[what]} {times} times while {others} other units were done, so it may be its "
                f"frames; {last}"
            )
        return (
            f"no unit is done any more: the {NAMES[what]} was lost {self._row[what]} times in a row, {times} of them "
            f"with {held}; {last}"
        )

    def _held(self, unit: Unit) -> str:
        keys = [source.key for source in unit.sources]
        return f"unit {unit.id} ({', '.join(keys[:SOURCES_SHOWN])}{' …' if len(keys) > SOURCES_SHOWN else ''})"
