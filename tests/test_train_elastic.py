"""Under torchrun a lost process is replaced, and SIGTERM saves first: the group sees the same batches throughout."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import launches
import pytest
import torch.distributed as dist
from launches import descendants, is_gone
from train_toy import batches, command_line, losses, trained, world

from toto.errors import UserError
from toto.train import alone, checkpoint, meeting

LINUX = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes of torchrun in /proc")
fork = multiprocessing.get_context("fork")


@LINUX
def test_torchrun_replaces_a_lost_process_and_saves_when_it_is_told_to_end(tmp_path: Path) -> None:
    data, run = world(tmp_path / "set"), tmp_path / "run"
    endless = {"steps": 100_000, "checkpoint_every": 10, "loader_workers": 1, "validate_every": 0}
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    started = launches.torchrun(options, command_line(data, run, **endless), run)
    told_of, said = (run.with_name(f"run.{name}") for name in ("stdout", "stderr"))
    wait_for(lambda: checkpoint.found(run), started, said)
    os.kill(descendants(started.pid)[0], signal.SIGKILL)  # rank 0, which was started first
    wait_for(lambda: "goes on after" in told_of.read_text(), started, said)
    again = len(batches(run))
    wait_for(lambda: len(batches(run)) > max(again, 20), started, said)
    left = descendants(started.pid)
    assert len(left) == 4, "two ranks and their readers"
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait(200), said.read_text()
    saved, told = checkpoint.found(run)[-1], batches(run)
    assert f"saved {saved}" in said.read_text() and checkpoint.read_facts(saved)["step"] == len(told)
    assert all(is_gone(pid) for pid in left)
    expected = trained(data, tmp_path / "alone", "--stop-at", str(len(told)), **endless)
    assert told == batches(expected)
    assert losses(run) == pytest.approx(losses(expected), abs=1e-3)


def wait_for(happened: Callable[[], Any], started: launches.Process, said: Path) -> None:
    """Returns when something happened; AssertionError when the processes end before."""
    while not happened():
        assert started.poll() is None, said.read_text()
        time.sleep(0.005)


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


def hold(folder: Path, began: Connection) -> None:
    """Holds a run's folder until it is killed, with a child that outlives it."""
    with alone.alone(folder):
        child = fork.Process(target=time.sleep, args=(600,))
        child.start()
        began.send(child.pid)
        time.sleep(600)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[multiprocessing.Process]:
    """A process that holds the folder `run`; the child that it leaves behind ends with the test."""
    told, began = fork.Pipe(duplex=False)
    process = fork.Process(target=hold, args=(tmp_path / "run", began))
    process.start()
    child = told.recv()
    yield process
    os.kill(child, signal.SIGKILL)  # it was there still


def kill(process: multiprocessing.Process) -> None:
    process.kill()
    process.join()


def test_a_killed_run_lets_go_of_its_folder_though_its_children_live_on(
    tmp_path: Path, holder: multiprocessing.Process
) -> None:
    with pytest.raises(UserError, match="another process trains in"), alone.alone(tmp_path / "run"):
        pass
    kill(holder)
    with alone.alone(tmp_path / "run"):
        pass


def test_what_torchrun_starts_again_waits_for_those_before_it(
    tmp_path: Path,
    holder: multiprocessing.Process,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    monkeypatch.setattr(alone, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda s: kill(holder)))
    with alone.alone(tmp_path / "run"):
        assert not holder.is_alive() and "waiting 120 s at most" in capsys.readouterr().err
