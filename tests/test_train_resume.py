"""Training killed at any moment, or stopped, and started again: the same batches, the same bits, nothing lost."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from token_world import moving_videos, write_tokens
from train_toy import (
    Command,
    Strike,
    batches,
    call,
    command_line,
    history,
    same_state,
    state,
    steps,
    trained,
    world,
)

from toto import Dataset
from toto.shards.hashing import json_sha256
from toto.train import checkpoint
from toto.train.stopping import Stopping
from toto.train.watch.metrics import FILE
from toto.train.watch.sinks import BOARD

CHANGES = 170  # about so many files does an undisturbed run open, rename or remove
AGAIN = "run the same command again to go on"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world") / "set")


@pytest.fixture(scope="module", params=[1, 2], ids=["one_thread", "two_threads"])
def threads(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def undisturbed(data: Path, threads: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nobody disturbs."""
    return trained(data, tmp_path_factory.mktemp("undisturbed") / "run", threads=threads)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on one thread, for tests that do not ask about threads."""
    return trained(data, tmp_path_factory.mktemp("alone") / "run")


def assert_same(run: Path, expected: Path) -> None:
    """Same batches, losses, norms and rates at every step, same held-out losses, same weights and moments: all bits."""
    assert batches(run) == batches(expected) and len(batches(run)) > 10
    assert history(run) == history(expected)
    assert same_state(run, expected)
    assert not list(run.glob(".step-*"))


def assert_same_but_for_its_pauses(run: Path, expected: Path) -> None:
    """The same; a pause adds one held-out loss to the log."""
    assert steps(run) == steps(expected) and same_state(run, expected)


def test_a_run_killed_at_any_change_of_a_file_ends_bit_identically(
    data: Path, threads: int, undisturbed: Path, tmp_path: Path
) -> None:
    rng = random.Random(threads)
    run = tmp_path / "run"
    codes = []
    for _ in range(4 if threads == 1 else 1):
        strike = Strike(rng.randint(1, CHANGES // 2))
        codes.append(call(command_line(data, run), run, threads=threads, strike=strike).code)
        assert_whole(run)
    assert -signal.SIGKILL in codes
    assert_same(trained(data, run, threads=threads), undisturbed)


def test_a_run_killed_at_random_moments_ends_bit_identically(data: Path, alone: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    run = tmp_path / "run"
    for _ in range(3):
        command = Command(command_line(data, run), run)
        wait_for(lambda: bool(checkpoint.found(run)), command)  # that it began to train
        time.sleep(rng.uniform(0, 0.25))
        command.process.kill()
        command.ended()
        assert_whole(run)
    assert_same(trained(data, run), alone)


def test_a_run_killed_while_it_writes_a_checkpoint_ends_bit_identically(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for _ in range(2):
        command = Command(command_line(data, run), run)
        wait_for(lambda: bool(list(run.glob(".step-*.partial"))), command)
        command.process.kill()
        command.ended()
        assert_whole(run)
    assert_same(trained(data, run), alone)


def test_training_in_the_background_ignores_ctrl_c_as_its_shell_has_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stopping() as stopping:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stopping.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert stopping.asked == signal.SIGTERM
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "code", "workers", "group"),
    [(signal.SIGINT, 130, 2, True), (signal.SIGTERM, 143, 2, True), (signal.SIGTERM, 143, 0, False)],
    ids=["ctrl_c_with_its_workers", "sigterm_with_its_workers", "sigterm_alone"],
)
def test_a_signal_saves_first_says_where_and_the_run_goes_on_bit_identically(
    number: signal.Signals, code: int, workers: int, group: bool, data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = call(command_line(data, run, loader_workers=workers), run, strike=Strike(40, number, group))
    saved = checkpoint.found(run)[-1]
    assert ended.failed(code, AGAIN) and f"saved {saved}" in ended.stderr, ended.stderr
    assert checkpoint.read_facts(saved)["step"] == len(steps(run))
    assert checkpoint.read_facts(saved)["step"] % 6, "no checkpoint was due there"
    assert_same(trained(data, run, loader_workers=workers), alone)


def test_a_signal_before_the_first_step_loses_nothing(data: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = call(command_line(data, run), run, strike=Strike(1, signal.SIGTERM))
    assert ended.failed(143, AGAIN), ended.stderr
    assert_same(trained(data, run), alone)


def test_a_run_that_pauses_goes_on_bit_identically(data: Path, alone: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for stop in (1, 7):  # where no checkpoint was due
        trained(data, run, "--stop-at", str(stop))
        assert checkpoint.found(run)[-1].name == checkpoint.name_of(stop)
    assert_same_but_for_its_pauses(trained(data, run), alone)


def test_a_finished_run_does_nothing_more_and_says_so(data: Path, alone: Path) -> None:
    before = contents(alone)
    ended = call(command_line(data, alone, "--json"), alone)
    assert ended.code == 0 and "18 steps done, nothing left to do" in ended.stdout, ended.stdout
    assert json.loads(ended.stdout.splitlines()[-1])["step"] == 18
    assert contents(alone) == before


def test_what_decides_neither_data_nor_weights_may_change(data: Path, alone: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "--stop-at", "5")
    changed = {"checkpoint_every": 20, "validate_every": 0, "log_every": 7, "keep_checkpoints": 1, "loader_workers": 1}
    trained(data, run, **changed)
    assert steps(run) == steps(alone) and same_state(run, alone)
    assert len(checkpoint.found(run)) == 1


def test_a_run_stays_on_its_snapshot_while_its_dataset_grows(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    whole = trained(data, tmp_path / "whole")
    snapshot = Dataset(data).dataset_id
    trained(data, run, "--stop-at", "7")
    write_tokens(data, [*moving_videos(150, seed=3)[96:], *moving_videos(40, "val", seed=4)[16:]], unit_sources=10)
    assert Dataset(data).dataset_id != snapshot and len(Dataset(data)) > 150
    trained(data, run)
    assert_same_but_for_its_pauses(run, whole)
    fresh = trained(data, tmp_path / "fresh", "--stop-at", "4")
    assert batches(fresh) != batches(whole)[:4]


def test_a_run_of_an_older_version_goes_on(data: Path, alone: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "--stop-at", "6", spike_sigmas=0)  # no guard: no tensor of it
    value = json.loads((run / "run.json").read_text())
    value.pop("phases")
    facts_of = checkpoint.found(run)[-1] / checkpoint.FACTS
    facts = json.loads(facts_of.read_text())
    facts.pop("hash")
    for section in (value["model"], value["recipe"], facts["model"], facts["training"]):
        for key in ("arch", "expand", "states", "conv_window"):
            section.pop(key, None)
        for key in ("schedule", "decay_share", "spike_sigmas", "sharding", "hop"):
            section.pop(key, None)
    (run / "run.json").write_text(json.dumps(value))
    facts_of.write_text(json.dumps({**facts, "hash": json_sha256(facts)}))
    for key, said in (("models.tiny.arch=gpt2", "'llama', not 'gpt2'"), ("recipes.demo.schedule=wsd", "'cosine', not")):
        assert call(command_line(data, run, "--set", key), tmp_path / "other").failed(2, said)
    assert_same(trained(data, run), alone)


def test_what_was_told_of_skipped_steps_that_happen_again_is_removed(data: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "--stop-at", "6")
    (run / "spikes").mkdir()
    for step in (5, 7, 11):
        (run / "spikes" / f"step-{step:09d}.json").touch()
    trained(data, run, "--stop-at", "7")
    assert [path.name for path in (run / "spikes").iterdir()] == ["step-000000005.json"]


def test_a_line_that_a_kill_cut_short_is_dropped(data: Path, alone: Path, tmp_path: Path) -> None:
    run = trained(data, tmp_path / "run", "--stop-at", "6")
    with open(run / FILE, "a") as file:
        file.write('{"step": 7, "loss": 9.9, "batch": "00"}\n{"step": 8, "lo')
    trained(data, run)
    assert [line["step"] for line in steps(run)] == list(range(1, 19))
    assert steps(run) == steps(alone)


def contents(run: Path) -> dict[Path, bytes]:
    """Every file of a run but TensorBoard's."""
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.parent.name != BOARD}


def assert_whole(run: Path) -> None:
    """Whatever is called a checkpoint can be loaded."""
    for folder in checkpoint.found(run):
        assert len(state(folder)) > 10


def wait_for(happened, command: Command) -> None:
    """Returns as soon as something happened, or the command ended."""
    while not happened() and command.process.is_alive():
        time.sleep(0.0005)
