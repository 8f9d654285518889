"""Draws the files of a world side by side, in as many processes as this one may use cores.

    parent   one `python -c` per share: settings go in by stdin, one byte comes back by a shared pipe per file
    child    draws every n-th file of the plan

Threads would wait for one another (drawing is many short calls: two were no faster than one), and
multiprocessing would run the user's script again in each child.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import IO

from toto.affinity import cores
from toto.errors import UserError
from toto.tokenize.demo import cater, davis, ego4d_sta, imagenet, kinetics
from toto.tokenize.demo.spec import Job, WorldSpec

LAYOUTS = {
    "kinetics": kinetics.jobs,
    "imagenet": imagenet.jobs,
    "davis": davis.jobs,
    "cater": cater.jobs,
    "ego4d_sta": ego4d_sta.jobs,
}
MAX_PROCESSES = 8
FILES_PER_PROCESS = 50  # starting a process takes about as long as drawing five
_CHILD = "from toto.tokenize.demo.crew import child; child()"

Progress = Callable[[int, int], None]


def draw(world: Path, spec: WorldSpec, progress: Progress | None = None) -> None:
    """Draws every file of a world whose annotations are written; calls `progress(done, total)` after each."""
    work = _plan(world, spec)
    processes = max(1, min(cores(), MAX_PROCESSES, len(work) // FILES_PER_PROCESS))
    if processes == 1:
        for done, job in enumerate(work, start=1):
            job()
            _tell(progress, done, len(work))
    else:
        _draw_apart(world, spec, processes, len(work), progress)


def child() -> None:
    """What a child process does: draws its share, writes one byte to stdout per file."""
    order = json.load(sys.stdin)
    for job in _plan(Path(order["world"]), WorldSpec.of(order["spec"]))[order["share"] :: order["of"]]:
        job()
        os.write(1, b".")  # fails when the parent is gone, which ends the child


def _plan(world: Path, spec: WorldSpec) -> list[Job]:
    return [job for name, jobs in LAYOUTS.items() for job in jobs(world / name, spec)]


def _draw_apart(world: Path, spec: WorldSpec, processes: int, files: int, progress: Progress | None) -> None:
    read_end, write_end = os.pipe()
    children: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as errors, os.fdopen(read_end, "rb", buffering=0) as reports:
        try:
            with os.fdopen(write_end, "wb") as sink:  # closed here, so that the end of all children ends the pipe
                for share in range(processes):
                    order = {"world": str(world), "spec": asdict(spec), "share": share, "of": processes}
                    children.append(_start(order, sink, errors))
            done = 0
            while report := reports.read(64):
                done += len(report)
                _tell(progress, done, files)
            if any([one.wait() for one in children]):
                raise UserError(f"could not draw the demo world at {world}: {_last_line(errors)}")
        finally:
            for one in children:
                one.kill()
                one.wait()


def _start(order: dict[str, object], reports: IO[bytes], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(entry for entry in sys.path if entry)
    started = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=reports,
        stderr=errors,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert started.stdin is not None
    with started.stdin as stdin:
        stdin.write(json.dumps(order).encode())
    return started


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "a drawing process was killed"


def _tell(progress: Progress | None, done: int, files: int) -> None:
    if progress is not None:
        progress(done, files)
