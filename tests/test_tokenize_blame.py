"""Who is blamed for a worker's death: a source that killed three in a row while alone with them, and nobody else."""

from toto.tokenize.blame import Alone, Blame, Task
from toto.tokenize.units import PlannedSource, Unit


def unit_of(*keys: str) -> Unit:
    sources = tuple(PlannedSource(key, "train", "video", None, 1, 0, "", 1) for key in keys)
    return Unit(f"unit-of-{keys[0]}", "train", 0, sources)


def work_off(blame: Blame, unit: Unit, killers: set[str], shaky: dict[str, int] | None = None) -> list[Task]:
    """Every task that is given out until nothing is left; `shaky`: how often a source kills before it behaves."""
    left, todo, done = dict(shaky or {}), [unit], []
    while todo and len(done) < 100:
        task = todo.pop()
        done.append(task)
        keys = {task.source.key} if isinstance(task, Alone) else {s.key for s in task.sources}
        keys -= set(blame.guilty.get(unit.id, {}))
        (struck, *_) = [*sorted(key for key in keys if key in killers or left.get(key, 0) > 0), None]
        if struck is None:
            todo += blame.survived(task) if isinstance(task, Alone) else []
            continue
        left[struck] = left.get(struck, 0) - 1
        todo += blame.died(task, "crash")
    return done


def test_only_the_killer_of_a_unit_is_blamed_and_the_unit_comes_last() -> None:
    blame, unit = Blame(), unit_of("a", "b", "c")
    done = work_off(blame, unit, {"b"})
    assert {key: reason for key, (reason, _) in blame.guilty[unit.id].items()} == {"b": "crash"}
    assert done[-1] == unit
    assert sum(isinstance(task, Alone) and task.source.key == "b" for task in done) == 3


def test_two_killers_of_one_unit_are_both_found() -> None:
    blame, unit = Blame(), unit_of("a", "b", "c", "d")
    assert work_off(blame, unit, {"a", "d"})[-1] == unit
    assert set(blame.guilty[unit.id]) == {"a", "d"}


def test_a_source_alone_in_its_unit_needs_no_trial() -> None:
    blame, unit = Blame(), unit_of("a")
    assert work_off(blame, unit, {"a"}) == [unit] * 4
    assert set(blame.guilty[unit.id]) == {"a"}


def test_who_dies_with_two_workers_and_then_behaves_is_not_blamed() -> None:
    blame, unit = Blame(), unit_of("a", "b")
    assert work_off(blame, unit, set(), {"a": 4})[-1] == unit  # two of the unit, two alone
    assert blame.guilty == {}
