"""Who killed a worker: the machine, or a source? A source is blamed only after it was alone with three that died.

    a unit lost its worker twice ─▶ each of its sources alone, its rows thrown away ─▶ the unit anew, without those that
                                     killed three workers in a row

Deaths of nodes are not told here: they never count. Decoding has a child of its own and ends in the quarantine by
itself (one_source.py); this is for what kills the worker that reads from it.
"""

from collections import Counter
from dataclasses import dataclass

from toto.tokenize.units import PlannedSource, Unit

SUSPICIOUS = 2  # workers that a unit lost
TRIES = 3  # workers that a source killed in a row, alone with them


@dataclass(frozen=True)
class Alone:
    """One source, tried by itself in a worker."""

    unit: Unit
    source: PlannedSource


Task = Unit | Alone


class Blame:
    """Told about deaths of workers; says what to do next."""

    def __init__(self) -> None:
        self.guilty: dict[str, dict[str, tuple[str, str]]] = {}  # unit id -> source key -> (reason, detail)
        self._deaths: Counter[tuple[str, ...]] = Counter()  # by unit id, or unit id and source key
        self._untried: dict[str, int] = {}  # unit id -> sources that are still to be tried alone

    def deaths(self, unit: Unit) -> int:
        """How many workers a unit has lost."""
        return self._deaths[(unit.id,)]

    def died(self, task: Task, reason: str) -> list[Task]:
        """A worker died of "crash" or "oom" while it did this; the tasks that take its place."""
        name = (task.id,) if isinstance(task, Unit) else (task.unit.id, task.source.key)
        self._deaths[name] += 1
        if isinstance(task, Unit):
            if self._deaths[name] == SUSPICIOUS and len(task.sources) > 1:
                self._untried[task.id] = len(task.sources)
                return [Alone(task, source) for source in task.sources]
            if self._deaths[name] == TRIES and len(task.sources) == 1:
                self._accuse(task, task.sources[0], reason)
            return [task]
        if self._deaths[name] < TRIES:
            return [task]
        self._accuse(task.unit, task.source, reason)
        return self._tried(task.unit)

    def survived(self, task: Alone) -> list[Task]:
        """A source did no harm; its unit, when that was the last one."""
        return self._tried(task.unit)

    def _tried(self, unit: Unit) -> list[Task]:
        self._untried[unit.id] -= 1
        return [] if self._untried[unit.id] else [unit]

    def _accuse(self, unit: Unit, source: PlannedSource, reason: str) -> None:
        detail = f"it killed its worker {TRIES} times in a row, alone in it"
        self.guilty.setdefault(unit.id, {})[source.key] = (reason, detail)
