"""Who killed a worker: the machine, or a source? A source is blamed only after it was alone with three that died.

    a unit lost its worker twice ─▶ each of its sources alone, its rows thrown away ─▶ the unit anew, without those that
                                     killed three workers in a row

The same for tokenizer actors, whose other users die with the killer: so a unit that lost two is first done with nobody
beside it, and a source is blamed only with proof that other frames do no harm. Deaths of nodes are not told here: they
never count. Decoding has a child of its own and ends in the quarantine by itself (one_source.py); this is for
what kills the process that gets its frames.
"""

from collections import Counter
from dataclasses import dataclass

from toto.tokenize.units import PlannedSource, Unit

WORKER, TOKENIZER = "worker", "tokenizer"
NAMES = {WORKER: "worker", TOKENIZER: "tokenizer actor"}
SUSPICIOUS = 2  # workers, or tokenizer actors, that a unit lost
TRIES = 3  # of these that a source killed in a row, alone with them


@dataclass(frozen=True)
class Alone:
    """One source, tried by itself in a worker, or (`what`) as the only one whose frames tokenizer actors have."""

    unit: Unit
    source: PlannedSource
    what: str = WORKER


Task = Unit | Alone


class Blame:
    """Told about deaths of workers; says what to do next."""

    def __init__(self) -> None:
        self.guilty: dict[str, dict[str, tuple[str, str]]] = {}  # unit id -> source key -> (reason, detail)
        self._deaths: Counter[tuple[str, ...]] = Counter()  # by what died and unit id, or these and source key
        self._quiet: set[str] = set()  # units that are done with nobody beside them
        self._untried: dict[str, int] = {}  # unit id -> sources that are still to be tried alone

    def needs_quiet(self, task: Task) -> bool:
        """Whether no other task may use tokenizer actors meanwhile."""
        return task.what == TOKENIZER if isinstance(task, Alone) else task.id in self._quiet

    def deaths(self, unit: Unit) -> int:
        """How many workers a unit has lost."""
        return self._deaths[(WORKER, unit.id)]

    def died(self, task: Task, reason: str, what: str = WORKER, cause: str = "", proven: bool = True) -> list[Task]:
        """A worker, or `what`, died of "crash" or "oom" while it did this; the tasks that take its place.

        `proven`: it was not the machine, which has done other work meanwhile; without that nobody is blamed.
        """
        name = (what, task.id) if isinstance(task, Unit) else (what, task.unit.id, task.source.key)
        self._deaths[name] += 1
        if isinstance(task, Unit):
            single = len(task.sources) == 1
            if what == TOKENIZER and self._deaths[name] >= SUSPICIOUS and task.id not in self._quiet:
                self._quiet.add(task.id)
                return self._each_alone(task, what) if single else [task]
            if self._deaths[name] == SUSPICIOUS + (what == TOKENIZER) and not single:
                return self._each_alone(task, what)
            if self._deaths[name] == TRIES and single and what == WORKER:
                self._accuse(task, task.sources[0], reason, what, cause)
            return [task]
        if self._deaths[name] < TRIES or not proven:
            return [task]
        self._accuse(task.unit, task.source, reason, what, cause)
        return self._tried(task.unit)

    def survived(self, task: Alone) -> list[Task]:
        """A source did no harm; its unit, when that was the last one."""
        return self._tried(task.unit)

    def _each_alone(self, unit: Unit, what: str) -> list[Task]:
        guilty = self.guilty.get(unit.id, {})
        trials: list[Task] = [Alone(unit, source, what) for source in unit.sources if source.key not in guilty]
        self._untried[unit.id] = len(trials)
        return trials or [unit]

    def _tried(self, unit: Unit) -> list[Task]:
        self._untried[unit.id] -= 1
        return [] if self._untried[unit.id] else [unit]

    def _accuse(self, unit: Unit, source: PlannedSource, reason: str, what: str, cause: str) -> None:
        detail = f"it killed its {NAMES[what]} {TRIES} times in a row, alone in it" + (f": {cause}" if cause else "")
        self.guilty.setdefault(unit.id, {})[source.key] = (reason, detail)
