"""The log of a run: one line a step, whole lines only, and the same numbers for TensorBoard."""

import json
import math
from pathlib import Path

import pytest
from train_toy import RECIPE, batches, steps, trained, world

from toto.shards.stream import open_run
from toto.shards.streaming.keyed import MASK
from toto.train.watch.metrics import FILE, Lines, read_metrics
from toto.train.watch.sinks import BOARD


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained in two parts."""
    folder = tmp_path_factory.mktemp("world")
    data = world(folder / "set")
    trained(data, folder / "run", "--stop-at", "4")
    return trained(data, folder / "run")


def test_every_step_has_one_line_of_finite_numbers(run: Path) -> None:
    lines = [line for line in read_metrics(run) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 19))
    for line in lines:
        numbers = [line[key] for key in ("loss", "learning_rate", "grad_norm", "tokens_per_s", "mfu")]
        assert all(math.isfinite(number) and number > 0 for number in numbers)
        assert line["tokens"] == RECIPE["batch_tokens"] and list(line["losses"].values()) == [
            pytest.approx(line["loss"])
        ]


def test_the_batch_of_a_line_is_the_hash_of_the_streams_sequences(run: Path) -> None:
    stream = open_run(run)
    size = stream.recipe.batch_sequences
    for step, batch in batches(run):
        hashes = [stream.sequence(g).hash for g in range((step - 1) * size, step * size)]
        assert batch == f"{sum(hashes) & MASK:016x}"


def test_held_out_losses_are_logged_by_frame(run: Path) -> None:
    lines = [line for line in read_metrics(run) if "validation_loss" in line]
    assert [line["step"] for line in lines] == [6, 12, 18]  # not where it paused, at 4
    for line in lines:
        assert len(line["validation_by_frame"]) == RECIPE["frames"]
        assert sum(line["validation_by_frame"]) / RECIPE["frames"] == pytest.approx(line["validation_loss"], abs=1e-5)


def test_tensorboard_holds_the_same_losses(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / BOARD))
    board.Reload()
    told = {event.step: event.value for event in board.Scalars("loss")}
    assert told == pytest.approx({line["step"]: line["loss"] for line in steps(run)}, rel=1e-6)
    held_out = {event.step: event.value for event in board.Scalars("validation_loss")}
    assert list(held_out) == [6, 12, 18]


@pytest.mark.parametrize(
    "end",
    [
        *('{"step": 3, "lo', '{"step": 3, "loss": 1.0', "\0\0\0", '{"step": "3"}\n', "[3]\n", "\n"),
        *(
            "[" * 200_000,
            '{"step": -1}\n',
            '{"step": 1' + "0" * 30 + "}\n",
            '{"step": 3, "x": "' + "y" * 2**21 + '"}\n',
        ),
    ],
    ids=range(10),
)
def test_what_a_kill_left_of_a_line_is_dropped(end: str, tmp_path: Path) -> None:
    whole = [{"step": step, "loss": step / 10} for step in (1, 2)]
    (tmp_path / FILE).write_text("".join(json.dumps(line) + "\n" for line in whole) + end)
    assert read_metrics(tmp_path) == whole
    lines = Lines(tmp_path, resumed_at=2)
    lines.write({"step": 3, "loss": 0.3})
    lines.close()
    assert read_metrics(tmp_path) == [*whole, {"step": 3, "loss": 0.3}]
    assert len((tmp_path / FILE).read_text().splitlines()) == 3


def test_lines_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    lines = Lines(tmp_path, resumed_at=0)
    for step in range(1, 8):
        lines.write({"step": step, "loss": 1.0})
    lines.close()
    Lines(tmp_path, resumed_at=4).close()
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == read_metrics(tmp_path / FILE) == []
