"""Actors that are lost again and again end the run with a reason; now and then, they do not."""

import pytest

from toto.errors import UserError
from toto.tokenize.losses import Losses
from toto.tokenize.units import PlannedSource, Unit
from toto.tokenize.waiting import Waiting


def unit_of(*keys: str) -> Unit:
    sources = tuple(PlannedSource(key, "train", "video", None, 1, 0, "", 1) for key in keys)
    return Unit(f"unit-of-{keys[0]}", "train", 0, sources)


def lose(losses: Losses, what: str, unit: Unit | None, times: int, workers: int = 1) -> list[float]:
    return [losses.lost(what, unit, "exit code 1", workers) for _ in range(times)]


@pytest.mark.parametrize(("what", "most", "advice"), [("tokenizer", 6, "device=cpu"), ("connection", 10, "network")])
def test_a_unit_that_loses_its_actor_every_time_ends_the_run(what: str, most: int, advice: str) -> None:
    losses, unit = Losses(), unit_of("a", "b", "c", "d")
    pauses = lose(losses, what, unit, most - 1)
    assert pauses == sorted(pauses) and pauses[0] > 0 and pauses[-1] <= 10
    with pytest.raises(UserError) as error:
        losses.lost(what, unit, "exit code 1")
    message = str(error.value)
    assert all(word in message for word in ("unit-of-a (a, b, c …)", f"{most} times", "exit code 1", advice))
    assert "no unit is done any more" in message and len(message.splitlines()) == 2


def test_of_a_unit_that_loses_its_tokenizer_while_others_are_done_the_frames_are_suspected() -> None:
    losses, unit = Losses(), unit_of("a")
    for _ in range(5):
        lose(losses, "tokenizer", unit, 1)
        losses.passed()
    with pytest.raises(UserError, match=r"unit-of-a \(a\) lost .* 6 times while 5 other units .* may be its frames"):
        losses.lost("tokenizer", unit, "exit code 1")


def test_many_units_that_lose_it_once_each_end_the_run_when_none_is_done_meanwhile() -> None:
    losses, units = Losses(), [unit_of(str(i)) for i in range(12)]
    for unit in units[:11]:
        lose(losses, "tokenizer", unit, 1, workers=2)
    with pytest.raises(UserError, match="no unit is done any more: .* 12 times in a row"):
        losses.lost("tokenizer", units[11], "exit code 1", workers=2)


def test_a_loss_now_and_then_never_ends_the_run() -> None:
    losses = Losses()
    for i in range(100):
        lose(losses, "tokenizer", unit_of(str(i)), 2)
        losses.passed()


def test_a_tokenizer_that_never_gets_ready_ends_the_run_and_one_that_does_starts_the_count_anew() -> None:
    losses = Losses()
    lose(losses, "tokenizer", None, 5)
    losses.is_ready("tokenizer")
    losses.passed()
    lose(losses, "tokenizer", None, 5)
    with pytest.raises(UserError, match=r"6 times before it was ready; the last time: exit code 1\n.*device"):
        losses.lost("tokenizer", None, "exit code 1")


def test_who_waits_for_room_is_told_once_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    patient, waiting = Waiting("a worker", after_s=3600), Waiting("a worker", after_s=0)
    for _ in range(3):
        patient.look(False)
        waiting.look(False, lambda: ": it needs a CPU")
    assert capsys.readouterr().err == "waiting for a node with room for a worker: it needs a CPU\n"
