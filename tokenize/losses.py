"""Actors that die, or are out of reach, for a reason that is no source's: work is given out again, but not for ever.

    a unit lost its tokenizer actor ─▶ a pause ─▶ the unit again ─▶ … ─▶ at a number, for it or in a row: UserError

Ray has sent a block to a tokenizer actor twice, and started that actor anew in between, before one death is told
here. Deaths of workers are blame.py's; those of nodes are never counted.
"""

from collections import Counter

from toto.errors import UserError
from toto.plain import counted
from toto.tokenize.blame import TOKENIZER, Alone, Task

CONNECTION = "connection"
MOST = {TOKENIZER: 6, CONNECTION: 10}  # of one task, or of each worker in a row while no unit is done
ADVICE = {
    TOKENIZER: "its device may have too little memory, or be broken: try --set tokenizers.NAME.device=cpu, "
    "or another GPU",
    CONNECTION: "the network between the nodes, or a node that has too much to do; run again, it goes on",
}
NAMES = {TOKENIZER: "tokenizer actor", CONNECTION: "connection to its worker"}
SOURCES_SHOWN = 3


class Losses:
    """Counts by unit, and in a row; says how long to wait before the next try."""

    def __init__(self) -> None:
        self._of: Counter[tuple[str, str | None]] = Counter()  # what died, task (None: it was getting ready)
        self._first: dict[tuple[str, str | None], int] = {}  # tasks that were done when that died first
        self._row: Counter[str] = Counter()  # since a unit was done last
        self._passed = 0

    def passed(self, encoded: bool = True) -> None:
        """A task was done; `encoded`: with frames, so that tokenizers are known to work."""
        self._row.pop(CONNECTION, None)
        if encoded:
            self._passed += 1
            self._row.clear()

    def is_the_tasks(self, what: str, task: Task, last: bool) -> bool:
        """Whether deaths are this task's doing: others were done since the first one, or, when it is the last that is
        left, before."""
        others = self._passed - self._first[what, _name(task)]
        return others > 0 or (last and self._passed > 0)

    def is_ready(self, what: str) -> None:
        """One came up: deaths before it say nothing any more."""
        self._of.pop((what, None), None)

    def lost(self, what: str, task: Task | None, cause: str, workers: int = 1) -> float:
        """Counts a death of "tokenizer" or "connection"; seconds to wait. UserError when it was one too many."""
        name = (what, _name(task) if task else None)
        self._first.setdefault(name, self._passed)
        self._of[name] += 1
        self._row[what] += 1
        if self._of[name] >= MOST[what] or self._row[what] >= MOST[what] * workers:
            raise UserError(self._words(what, task, cause))
        tries = max(self._of[name], self._row[what] / workers)
        return float(min(0.5 * 2**tries, 10.0)) / workers  # they all wait for this one driver

    def _words(self, what: str, task: Task | None, cause: str) -> str:
        last = f"the last time: {cause}\n{ADVICE[what]}"
        if task is None:
            return f"a {NAMES[what]} died {counted(self._of[what, None], 'time')} before it was ready; {last}"
        held, times = _held(task), self._of[what, _name(task)]
        others = self._passed - self._first[what, _name(task)]
        if others:
            meanwhile = f"while {counted(others, 'other unit')} got done"
            return (
                f"{held} lost its {NAMES[what]} {counted(times, 'time')} {meanwhile}, so it may be its frames; {last}"
            )
        return (
            f"no unit is done any more: the {NAMES[what]} was lost {counted(self._row[what], 'time')} in a row, "
            f"{times:,} of them with {held}; {last}"
        )


def _name(task: Task) -> str:
    return f"{task.unit.id}/{task.source.key}" if isinstance(task, Alone) else task.id


def _held(task: Task) -> str:
    if isinstance(task, Alone):
        return f"unit {task.unit.id} ({task.source.key}, tried alone)"
    keys = [source.key for source in task.sources]
    return f"unit {task.id} ({', '.join(keys[:SOURCES_SHOWN])}{' …' if len(keys) > SOURCES_SHOWN else ''})"
