"""The progress of one run: a live line on a terminal, plain lines elsewhere, a small file for `status`, seals.

Done work is counted in units and in the frames that the plan expects of them; rates come from the workers' counters.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from toto.shards.store import SCRATCH, LocalStore, Store
from toto.tokenize.units import Unit
from toto.tokenize.worker import Counters

SEAL_EVERY_S = 30 * 60
PROGRESS = "progress-"  # tmp/progress-<host>-<pid>.json
STALE_S = 30  # a run that has not written for so long is over, or was killed


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands."""

    units_done: int
    units: int
    frames_done: int  # expected kept frames of finished units
    frames: int
    seconds: float
    counters: Counters

    @property
    def eta_s(self) -> float | None:
        """Seconds left by kept frames; None before anything is known."""
        done = max(self.frames_done, min(self.counters.kept, self.frames))
        return self.seconds * (self.frames - done) / done if done and self.seconds > 0 else None

    def line(self) -> str:
        """One line for a person."""
        c, seconds = self.counters, max(self.seconds, 1e-9)
        eta = "" if self.eta_s is None else f" · {_clock(self.eta_s)} left"
        bad = f" · {c.quarantined} quarantined" if c.quarantined else ""
        return (
            f"tokenize {self.units_done}/{self.units} units · {c.decoded / seconds:,.0f} frames/s decoded · "
            f"{c.kept / seconds:,.0f} kept · {c.tokens / seconds:,.0f} tokens/s{bad}{eta}"
        )


class Monitor:
    """Told about finished units by the engine; reports in a thread of its own. Use as a context manager."""

    def __init__(self, store: Store, todo: list[Unit], done: int, seal: Callable[[], Any], quiet: bool = False) -> None:
        self._store, self._seal, self._quiet = store, seal, quiet
        self._total, self._before = len(todo) + done, done
        self._frames = sum(unit.estimated_frames for unit in todo)
        self._done: set[str] = set()
        self._frames_done = 0
        self._read: Callable[[], Counters] = Counters
        self._started = self._sealed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._file = f"{SCRATCH}/{PROGRESS}{socket.gethostname()}-{os.getpid()}.json"

    def watch(self, read: Callable[[], Counters]) -> None:
        """Says where the workers' counters are read."""
        self._read = read

    def unit_done(self, unit: Unit) -> None:
        """A unit is committed, by this run or by another one on the same target."""
        if unit.id not in self._done:
            self._done.add(unit.id)
            self._frames_done += unit.estimated_frames
        if time.monotonic() - self._sealed > SEAL_EVERY_S:
            self._seal()
            self._sealed = time.monotonic()

    def snapshot(self) -> Snapshot:
        """Where the run stands now."""
        seconds = time.monotonic() - self._started
        done = self._before + len(self._done)
        return Snapshot(done, self._total, self._frames_done, self._frames, seconds, self._read())

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):
            self._store.remove(self._file)
        if not self._quiet:
            sys.stderr.write(("\r\x1b[K" if sys.stderr.isatty() else "") + self.snapshot().line() + "\n")

    def _report(self) -> None:
        live = sys.stderr.isatty() and not self._quiet
        every = 0.5 if live else 10.0
        while not self._stop.wait(every if live else 1.0):
            now = self.snapshot()
            self._write(now)
            if live:
                sys.stderr.write("\r\x1b[K" + now.line())
                sys.stderr.flush()
            elif not self._quiet and now.seconds >= every:
                every += 10.0
                sys.stderr.write(now.line() + "\n")

    def _write(self, now: Snapshot) -> None:
        """Progress for `status`: of no use after the run, so a full disk is no reason to stop."""
        if isinstance(self._store, LocalStore):
            with suppress(OSError):
                self._store.write(self._file, json.dumps({**asdict(now), "eta_s": now.eta_s}).encode())


def running(store: Store) -> list[dict[str, Any]]:
    """The progress of every run that is going on now on a target, by its own word."""
    names = [name for name in store.list(SCRATCH) if name.startswith(f"{SCRATCH}/{PROGRESS}")]
    found = []
    for name in names:
        with suppress(FileNotFoundError, ValueError):
            if store.age_s(name) < STALE_S:
                found.append(
                    {
                        "run": name.removeprefix(f"{SCRATCH}/{PROGRESS}").removesuffix(".json"),
                        **json.loads(store.read(name)),
                    }
                )
    return found


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
