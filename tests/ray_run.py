"""A `toto-tokenize run` under a Ray of its own that tests can look into, signal and kill. Linux only: it reads /proc.

Every process that stems from a run inherits its mark in the environment, so that none is overlooked and no stranger's
is ever touched.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import warm
from clips import command, environment, run_arguments
from launches import Process

from toto.shards.commit import COMMITS
from toto.shards.store import open_store
from toto.tokenize.plan import read_plans

MARK = "TOTO_TEST_MARK"
VICTIMS = ("worker", "driver", "everything")
PATIENCE_S = 200
NO_RAY = "Ray did not start within 30 s"  # which is Ray's own patience, and too little on a busy machine
# Ray's own agents try for a minute to report the end to a head that is dead, then leave.
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def new_mark() -> str:
    """A value of MARK that no other process has."""
    return uuid.uuid4().hex


def processes(mark: str) -> dict[int, str]:
    """pid -> command line of all that live and bear a mark."""
    pids = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return {pid: _read(pid, "cmdline") for pid in pids if mark in _read(pid, "environ")}


def children(parent: int, variable: str) -> list[int]:
    """pids of the processes that this one started, and that have `variable`, as NAME=value, in their environment."""
    stats = {int(entry): _read(int(entry), "stat") for entry in os.listdir("/proc") if entry.isdigit()}
    found = [pid for pid, stat in stats.items() if stat and int(stat.rpartition(")")[2].split()[1]) == parent]
    return sorted(pid for pid in found if variable in _read(pid, "environ").split(" "))


def actors(mark: str, name: str) -> list[int]:
    """pids of the actors of this class that bear a mark."""
    return sorted(pid for pid, words in processes(mark).items() if words.startswith(f"ray::{name}"))


def events(out: Path, kind: str) -> list[dict[str, Any]]:
    """What the log of the only run on a target says of a kind of event."""
    (log,) = (out / "log").iterdir()
    return [line for line in map(json.loads, log.read_text().splitlines()) if line["event"] == kind]


class Run:
    """A started run of `folder` on these videos."""

    def __init__(self, videos: Path, out: Path, *arguments: str, **extra: str) -> None:
        self._out = out
        self.mark = new_mark()
        self._said = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115 (goes with this object)
        self._words = command("tokenize", "run", *run_arguments(videos, out), *arguments)
        self._environment = environment(**{MARK: self.mark}, **extra)
        self.process = self._begun()

    def _begun(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self._words, env=self._environment, stdout=subprocess.DEVNULL, stderr=self._said, process_group=0
        )

    def _begin_again_without_ray(self) -> None:
        """Starts it again where it ended because its Ray did not start in time."""
        if self.process.poll() == 1 and NO_RAY in self.stderr():
            self._said.seek(0)
            self._said.truncate()
            self.process = self._begun()

    def committed(self) -> int:
        """How many units are committed now; as cheap as can be, for it is asked a hundred times a second."""
        try:
            return len(os.listdir(self._out / COMMITS))
        except FileNotFoundError:
            return 0

    def planned(self) -> int:
        """How many units there are."""
        return len(read_plans(open_store(self._out)).units)

    def wait_for_commits(self, at_least: int) -> None:
        """Returns when so many units are committed; RuntimeError when the run ends before, or makes no headway."""
        deadline = time.monotonic() + PATIENCE_S
        while self.committed() < at_least:
            if time.monotonic() < deadline:
                self._begin_again_without_ray()
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the run made {self.committed()} of {at_least} commits: {self.stderr()}")
            time.sleep(0.01)

    def kill(self, victim: str, choose: Callable[[list[int]], int] = min) -> bool:
        """kill -9 of one of VICTIMS; False when it was gone already. Of a driver, its workers are gone then, too."""
        if victim == "worker":
            found = actors(self.mark, "UnitActor")
            return bool(found) and _killed(choose(found))
        killed = self.process.poll() is None and _killed(self.process.pid)
        while victim == "everything" and (found := list(processes(self.mark))):
            for pid in found:  # and again, for what was started meanwhile
                _killed(pid)
        self.process.wait()
        self.wait_until_gone(but=AGENTS)
        return killed

    def wait_until_gone(self, but: tuple[str, ...] = ()) -> None:
        """Returns when no process of this run is left; RuntimeError names those that stay."""
        deadline = time.monotonic() + PATIENCE_S
        while found := [words for words in processes(self.mark).values() if not words.startswith(but or "\0")]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes stay behind: {found}")
            time.sleep(0.05)

    def end(self) -> int:
        """Waits for the end; the exit code. RuntimeError when it does not come; the run is killed then."""
        try:
            self.process.wait(PATIENCE_S)
            self._begin_again_without_ray()
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill("everything")
            raise RuntimeError(f"the run does not end: {self.stderr()}") from None

    def stderr(self) -> str:
        """What it wrote to stderr so far."""
        self._said.seek(0)
        return self._said.read()


class WarmRun(Run):
    """The same in a process that starts warm (warm.py), on a Ray that is there. No `kill` finds what it started."""

    def _begun(self) -> Any:
        output = Path(os.devnull), Path(self._said.name)
        started = warm.start("tokenize", self._words[3:], output, self._environment, first=os.setpgrp)
        return Process(started, self._words)


def _killed(pid: int) -> bool:
    """Kills a process with -9; False when there is none."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _read(pid: int, name: str) -> str:
    """A file of /proc/<pid>, NULs as blanks; empty for a process that is gone, ended or not ours."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""
