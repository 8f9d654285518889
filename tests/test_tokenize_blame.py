"""Who is blamed for a worker's death: a source that killed three in a row while alone with them, and nobody else."""

from toto.tokenize.blame import TOKENIZER, WORKER, Alone, Blame, Task
from toto.tokenize.units import PlannedSource, Unit


def unit_of(*keys: str) -> Unit:
    sources = tuple(PlannedSource(key, "train", "video", None, 1, 0, "", 1) for key in keys)
    return Unit(f"unit-of-{keys[0]}", "train", 0, sources)


def work_off(
    blame: Blame, unit: Unit, killers: set[str], shaky: dict[str, int] | None = None, what: str = WORKER
) -> list[Task]:
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
        todo += blame.died(task, "crash", what)
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


def test_who_lost_two_tokenizers_is_done_with_nobody_beside_it_before_its_sources_are_tried() -> None:
    blame, unit, beside = Blame(), unit_of("a", "b"), unit_of("c", "d")
    for lost in (1, 2):
        assert blame.died(unit, "crash", TOKENIZER) == [unit] and blame.died(beside, "crash", TOKENIZER) == [beside]
        assert blame.needs_quiet(unit) == blame.needs_quiet(beside) == (lost == 2)
    trials = blame.died(unit, "crash", TOKENIZER)  # `beside` does no harm alone: it is never cut up
    assert [task.source.key for task in trials if isinstance(task, Alone)] == ["a", "b"]
    assert all(map(blame.needs_quiet, trials))


def test_the_killer_of_tokenizers_is_found_and_told_with_the_cause() -> None:
    blame, unit = Blame(), unit_of("a", "b", "c")
    assert work_off(blame, unit, {"b"}, what=TOKENIZER)[-1] == unit
    ((key, (reason, detail)),) = blame.guilty[unit.id].items()
    assert (key, reason) == ("b", "crash") and "tokenizer actor 3 times" in detail


def test_without_proof_that_tokenizers_work_nobody_is_blamed() -> None:
    blame, unit = Blame(), unit_of("a")
    (trial,) = [blame.died(unit, "crash", TOKENIZER) for _ in range(2)][-1]
    for _ in range(5):
        assert blame.died(trial, "crash", TOKENIZER, "a broken device", proven=False) == [trial]
    assert not blame.guilty
    assert blame.died(trial, "oom", TOKENIZER, "out of memory") == [unit]
    assert "out of memory" in blame.guilty[unit.id]["a"][1]
