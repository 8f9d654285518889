"""Several processes train as one does: the same batches and losses, one log; with any workers and micro-batches."""

import signal
from pathlib import Path

import pytest
from train_toy import Strike, batches, call_ranks, command_line, history, losses, same_state, trained, world

from toto.train import checkpoint


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    return trained(data, tmp_path_factory.mktemp("alone") / "run")


def test_a_run_goes_on_with_another_number_of_processes(data: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop, ranks in (("4", 1), ("8", 2), ("12", 3), ("18", 1)):  # 3 share the 8 sequences of a step 2, 3, 3
        trained(data, run, "--stop-at", stop, ranks=ranks)
    assert batches(run) == batches(alone)
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)
    mine, theirs = held_out(run), held_out(alone)
    assert all(mine[step] == pytest.approx(theirs[step], abs=1e-4) for step in theirs)


def test_a_run_whose_weights_are_cut_among_processes_is_the_run_of_one(data: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop, ranks, recompute in (("7", 2, False), ("12", 3, True), ("18", 1, False)):  # blocks of 32 cut in 3
        trained(data, run, "--stop-at", stop, ranks=ranks, sharding="fsdp", recompute=recompute, micro_sequences=2)
        assert "warning" not in "".join(path.read_text() for path in tmp_path.glob("run.*stderr"))
    assert batches(run) == batches(alone)
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)
    mine, theirs = held_out(run), held_out(alone)
    assert all(mine[step] == pytest.approx(theirs[step], abs=1e-4) for step in theirs)


def test_micro_batches_change_a_loss_by_rounding_only(data: Path, alone: Path, tmp_path: Path) -> None:
    for micro in (1, 3):  # 3 cuts 8 in 2, 3, 3
        run = trained(data, tmp_path / str(micro), "--stop-at", "8", micro_sequences=micro)
        assert batches(run) == batches(alone)[:8]
        assert losses(run) == pytest.approx(losses(alone)[:8], abs=1e-5)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_that_read_change_nothing(workers: int, data: Path, alone: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", loader_workers=workers)
    assert history(run) == history(alone) and same_state(run, alone)


def test_a_batch_that_cannot_be_dealt_out_is_refused(data: Path, tmp_path: Path) -> None:
    ends = call_ranks(command_line(data, tmp_path / "run", batch_tokens=128), tmp_path / "run", 3)
    assert ends[0].failed(2, "a batch of 2 sequences is too small for 3 ranks"), ends
    assert all(end.failed(2, "the first process refused") for end in ends[1:]), ends


def test_a_signal_to_one_of_the_processes_stops_and_saves_them_all(data: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ends = call_ranks(command_line(data, run), run, 2, strike=Strike(40, signal.SIGINT))  # only the first writes files
    assert [end.code for end in ends] == [130, 130], ends
    assert checkpoint.read_facts(checkpoint.found(run)[-1])["step"] == len(batches(run)) < 18
    trained(data, run)
    assert batches(run) == batches(alone)


def held_out(run: Path) -> dict[int, float]:
    """Held-out losses by step."""
    return {line["step"]: line["validation_loss"] for line in history(run) if "validation_loss" in line}
