"""The progress of one run: a live line on a terminal, plain lines elsewhere, a small file for `status`, seals.

Done work is counted in units and in the frames that the plan expects of them; rates come from the workers' counters.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any

from toto.errors import UserError
from toto.plain import counted
from toto.shards.store import SCRATCH, Store
from toto.tokenize.event_log import EventLog
from toto.tokenize.unit import UnitReport
from toto.tokenize.units import Unit
from toto.tokenize.worker import Counters

SEAL_EVERY_S = 30 * 60
PROGRESS = "progress-"  # tmp/progress-<host>-<pid>.json
STALE_S = 30.0  # a run that has not written for so long, or missed four turns, is over or was killed
JOIN_S = 5.0  # how long the end waits for a report that is being written to a slow store


@dataclass(frozen=True)
class Snapshot:
    """Where a run stands."""

    units_done: int
    units: int
    frames_done: int  # expected kept frames of finished units
    frames: int
    seconds: float
    counters: Counters
    at_work: int = 0  # units that workers hold now
    starting: str = ""  # what is waited for before any work

    @property
    def eta_s(self) -> float | None:
        """Seconds left by kept frames; None before anything is known."""
        done = max(self.frames_done, min(self.counters.kept, self.frames))
        return self.seconds * (self.frames - done) / done if done and self.seconds > 0 else None

    def line(self) -> str:
        """One line for a person."""
        c, seconds = self.counters, max(self.seconds, 1e-9)
        if self.starting:
            return f"tokenize {self.units_done}/{counted(self.units, 'unit')} · starting {self.starting}"
        eta = "" if self.eta_s is None else f" · {_clock(self.eta_s)} left"
        bad = f" · {c.quarantined} quarantined" if c.quarantined else ""
        on_the_way = f", {c.in_flight / 1e6:,.1f} MB of frames" if c.in_flight else ""
        in_flight = f" · in flight {self.at_work}{on_the_way}" if self.at_work else ""
        return (
            f"tokenize {self.units_done}/{counted(self.units, 'unit')}{in_flight} · "
            f"{c.decoded / seconds:,.0f} frames/s decoded · {c.kept / seconds:,.0f} kept · "
            f"{c.tokens / seconds:,.0f} tokens/s{bad}{eta}"
        )


class Monitor:
    """Told about finished units by the engine; reports in a thread of its own. Use as a context manager."""

    def __init__(
        self, store: Store, todo: list[Unit], done: int, seal: Callable[[], Any], log: EventLog, quiet: bool = False
    ) -> None:
        self._store, self._seal, self._log, self._quiet = store, seal, log, quiet
        self._total, self._before = len(todo) + done, done
        self._frames = sum(unit.estimated_frames for unit in todo)
        self._done: set[str] = set()
        self._remarks: set[str] = set()
        self._frames_done = 0
        self._read: Callable[[], Counters] = Counters
        self._at_work: Callable[[], int] = lambda: 0
        self._starting = ""
        self._started = self._sealed = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)
        self._file = f"{SCRATCH}/{PROGRESS}{socket.gethostname()}-{os.getpid()}.json"

    def watch(self, read: Callable[[], Counters], at_work: Callable[[], int] = lambda: 1) -> None:
        """Says where the workers' counters are read, and how many units are in work."""
        self._read, self._at_work, self._starting = read, at_work, ""

    def starting(self, what: str) -> None:
        """Says what comes up before there are workers, until `watch`."""
        self._starting = what

    def event(self, event: str, **facts: Any) -> None:
        """Notes something in the run's log."""
        self._log.event(event, **facts)

    def remarks(self, lines: Iterable[str]) -> None:
        """Shows what workers elsewhere have said of how their networks run, each line once."""
        for line in lines:
            if line not in self._remarks:
                self._remarks.add(line)
                sys.stderr.write(("\r\x1b[K" if sys.stderr.isatty() else "") + line + "\n")

    def unit_done(self, unit: Unit, report: UnitReport | None = None) -> None:
        """A unit is committed: by this run, whose worker reports, or by another one on the same target."""
        if report is not None:
            facts = {key: value for key, value in vars(report).items() if key != "quarantined"}
            self._log.event("unit", unit=unit.id, split=unit.split, attempt=unit.attempt, **facts)
            for key, reason, detail in report.quarantined:
                self._log.event("quarantined", unit=unit.id, source=key, reason=reason, detail=detail)
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
        counters, at_work = self._read(), self._at_work()
        return Snapshot(done, self._total, self._frames_done, self._frames, seconds, counters, at_work, self._starting)

    def __enter__(self) -> "Monitor":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(JOIN_S)
        with suppress(OSError, UserError):
            self._store.remove(self._file)
        if not self._quiet:
            sys.stderr.write(
                ("\r\x1b[K" if sys.stderr.isatty() else "") + replace(self.snapshot(), at_work=0).line() + "\n"
            )

    def _report(self) -> None:
        live = sys.stderr.isatty() and not self._quiet
        every = 0.5 if live else 10.0
        next_write_s = 0.0
        while not self._stop.wait(every if live else 1.0):
            now = self.snapshot()
            if now.seconds >= next_write_s:
                next_write_s = now.seconds + self._store.report_every_s - 0.1  # a turn comes a little early or late
                self._write(now)
            if live:
                sys.stderr.write("\r\x1b[K" + now.line())
                sys.stderr.flush()
            elif not self._quiet and now.seconds >= every:
                every += 10.0
                sys.stderr.write(now.line() + "\n")

    def _write(self, now: Snapshot) -> None:
        """Progress for `status`: of no use after the run, so a full disk is no reason to stop."""
        with suppress(OSError, UserError):
            self._store.write(self._file, json.dumps({**asdict(now), "eta_s": now.eta_s}).encode())


def running(store: Store) -> list[dict[str, Any]]:
    """The progress of every run that is going on now on a target, by its own word."""
    names = [name for name in store.list(SCRATCH) if name.startswith(f"{SCRATCH}/{PROGRESS}")]
    stale_s = max(STALE_S, 4 * store.report_every_s)
    found = []
    for name in names:
        with suppress(FileNotFoundError, ValueError):
            if store.age_s(name) < stale_s:
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
