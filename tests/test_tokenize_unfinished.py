"""What killed workers leave unfinished goes again, and nothing of a process that lives, or of another machine."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from toto.shards.store import SCRATCH, LocalStore
from toto.tokenize import unfinished as files
from toto.tokenize.unfinished import remove_old, remove_unfinished, unfinished


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def left(store: LocalStore) -> set[str]:
    return {name.removeprefix(f"{SCRATCH}/") for name in store.list(SCRATCH)}


def leave(store: LocalStore, pid: int) -> str:
    """An unfinished file as the process `pid` of this machine would name it."""
    machine, _, word = unfinished(store).name.split("-")
    path = store.root / SCRATCH / f"{machine}-{pid}-{word}"
    path.write_bytes(b"half")
    return path.name


def dead() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_files_of_dead_processes_of_this_machine_go_and_no_others(store: LocalStore) -> None:
    mine = leave(store, os.getpid())
    leave(store, dead())
    others = ["0123456789ab-1-0123456789ab", "77-0123456789ab", "seal.lock", "somebody's notes"]
    for name in others:
        (store.root / SCRATCH / name).touch()
    remove_unfinished(store)
    assert left(store) == {mine, *others}


def test_a_process_that_nobody_has_asked_about_since_it_ended_is_dead(store: LocalStore) -> None:
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays as a zombie
    leave(store, process.pid)
    try:
        remove_unfinished(store)
        assert left(store) == set()
    finally:
        process.wait()


def test_a_worker_that_is_ending_is_waited_for(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DYING_S", 60.0)
    process = subprocess.Popen(["sleep", "0.1"])
    leave(store, process.pid)
    remove_unfinished(store, [process.pid])
    assert left(store) == set()


def test_who_does_not_end_is_not_waited_for_long(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "DYING_S", 0.05)
    mine = leave(store, os.getpid())
    remove_unfinished(store, [os.getpid()])
    assert left(store) == {mine}


def test_what_nobody_wrote_to_for_a_day_goes_but_locks_and_strangers_files_stay(store: LocalStore) -> None:
    names = ["0123456789ab-1-0123456789ab", "77-0123456789ab", "probe-0123456789ab", "progress-host-1.json"]
    kept = ["seal.lock", "run.lock", "notes.txt"]
    (store.root / SCRATCH).mkdir()
    for name in names + kept:
        (store.root / SCRATCH / name).touch()
        os.utime(store.root / SCRATCH / name, (time.time() - 25 * 3600,) * 2)
    (store.root / SCRATCH / "78-0123456789ab").touch()
    remove_old(store)
    assert left(store) == {*kept, "78-0123456789ab"}
