"""A process that is lost under torchrun is replaced: the group starts again, goes on, and sees the same batches."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from clips import environment
from ray_run import children
from train_toy import batches, command_line, losses, trained, world

from toto.errors import UserError
from toto.train import alone, checkpoint, meeting

LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes of torchrun in /proc")
fork = multiprocessing.get_context("fork")


@LINUX
def test_torchrun_goes_on_with_the_same_batches_after_the_loss_of_the_first_process(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    changed = {"steps": 40, "loader_workers": 1, "validate_every": 0}
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m", "toto.train"]
    started = subprocess.Popen(
        [sys.executable, "-m", *torchrun, *command_line(data, run, **changed)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not checkpoint.found(run) and started.poll() is None:
        time.sleep(0.005)
    assert started.poll() is None, started.communicate()[0]
    (first,) = children(started.pid, "RANK=0")
    os.kill(first, signal.SIGKILL)
    said, _ = started.communicate(timeout=200)
    assert started.returncode == 0, said
    assert "goes on after" in said and "Traceback" not in said and "40 steps done" in said, said
    expected = trained(data, tmp_path / "alone", **changed)
    assert batches(run) == batches(expected)
    assert losses(run) == pytest.approx(losses(expected), abs=1e-4)


@pytest.mark.parametrize("late", [0, 1, 2])
def test_processes_that_start_again_meet_each_other_and_none_from_before(late: int) -> None:
    store = dist.HashStore()
    for start, world_size in enumerate((3, 3, 2, 3)):
        met: dict[int, dist.Store] = {}

        def join(rank: int) -> None:
            time.sleep(0.05 * (rank == late))
            met[rank] = meeting.meet(store, rank, world_size)  # noqa: B023 (ends in this round)

        threads = [threading.Thread(target=join, args=(rank,)) for rank in range(world_size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not any(place.check(["address"]) for place in met.values())
        met[world_size - 1].set("address", str(start))
        assert {int(place.get("address")) for place in met.values()} == {start}


def test_a_process_that_stays_away_is_told() -> None:
    with pytest.raises(UserError, match="rank 1 of 2 waited 0 s for the others"):
        meeting.meet(dist.HashStore(), 1, 2, patience_s=0.1)


def hold(folder: Path, began, seconds: float) -> None:
    """Holds a run's folder for so long, with a child that outlives it."""
    with alone.alone(folder):
        child = fork.Process(target=time.sleep, args=(10,))
        child.start()
        began.put(child.pid)
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)


def holder(folder: Path, seconds: float) -> tuple[multiprocessing.Process, int]:
    """A process that holds the folder, and the child that it will leave behind."""
    began = fork.Queue()
    process = fork.Process(target=hold, args=(folder, began, seconds))
    process.start()
    return process, began.get()


def test_a_killed_run_lets_go_of_its_folder_though_its_children_live_on(tmp_path: Path) -> None:
    process, child = holder(tmp_path / "run", 0.2)
    try:
        with pytest.raises(UserError, match="another process trains in"), alone.alone(tmp_path / "run"):
            pass
        process.join()
        with alone.alone(tmp_path / "run"):
            os.kill(child, 0)  # it is there still
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_torchrun_starts_again_waits_for_those_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    process, child = holder(tmp_path / "run", 0.5)
    with alone.alone(tmp_path / "run"):
        assert not process.is_alive() and "waiting 120 s at most" in capsys.readouterr().err
    os.kill(child, signal.SIGKILL)
