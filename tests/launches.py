"""What starts processes of its own (torchrun, verify-resume, a benchmark) without a fresh Python for each of them.

    torchrun(["--nproc-per-node=2"], ["pretrain", …], place)   its own main, in a process that starts warm (warm.py)
        └─ `python -u -m toto.train pretrain …`                where it would start this, it forks

Sessions, environment, signals and exit codes are those of fresh processes; that `python -m toto.train` is the same
command is proved by the runs of `make drill`.
"""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import warm

fork = get_context("fork")
OWN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)  # which torchrun handles


class Process:
    """As much of a subprocess.Popen as is asked of one."""

    def __init__(self, process: BaseProcess, args: Sequence[str]) -> None:
        self._process, self.args = process, list(args)
        self.stdin = self.stdout = None

    @property
    def pid(self) -> int:
        """Of the process; of its session too, where it was to have one."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Below 0: the number of the signal that killed it."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Its exit code; None while it goes on."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode


class Rank(Process):
    """`python -u -m toto.train …` as a fork: what torchrun starts."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], **_: Any) -> None:
        assert list(args[1:4]) == ["-u", "-m", "toto.train"], args
        rank = fork.Process(target=_rank, args=(args[4:], dict(env)))
        rank.start()
        super().__init__(rank, args)


class Run(Process):
    """What verify-resume starts: `python -m toto.train …`, or the same by torchrun. Only stderr is kept.

    A run that is there to be killed, the first in the folder `broken`, waits for that at its LAST step.
    """

    LAST = 16

    def __init__(self, args: Sequence[str], stderr: Any, env: Mapping[str, str], **_: Any) -> None:
        module, *words = args[2:]
        own = words.index("toto.train") + 1 if module != "toto.train" else 0
        run, output = Path(stderr.name).with_suffix(""), (Path(os.devnull), Path(stderr.name))
        doomed = run.name == "broken" and not run.exists()
        first = partial(_torchrun, words[: own - 2]) if own else partial(_alone, self.LAST if doomed else 0)
        super().__init__(warm.start("train", words[own:], output, env, first=first), args)


class Side(Process):
    """`python script.py …` as a fork that is spoken to through pipes, by lines of text."""

    def __init__(self, args: Sequence[str], **_: Any) -> None:
        (reads, stdin), (stdout, writes) = os.pipe(), os.pipe()
        side = fork.Process(target=_side, args=(args[1:], reads, writes))
        side.start()
        os.close(reads)
        os.close(writes)
        super().__init__(side, args)
        self.stdin, self.stdout = os.fdopen(stdin, "w"), os.fdopen(stdout)

    def communicate(self) -> None:
        """Tells it that there is no more to read, and waits for its end."""
        self.stdin.close()
        self.stdout.read()
        self.wait()


def torchrun(options: Sequence[str], arguments: Sequence[str], place: Path) -> Process:
    """`torchrun OPTIONS -m toto.train ARGUMENTS`, going on; what it and its ranks say is in `place`.stderr."""
    output = place.with_name(f"{place.name}.stdout"), place.with_name(f"{place.name}.stderr")
    started = warm.start("train", arguments, output, os.environ, first=partial(_torchrun, options))
    return Process(started, ["torchrun", *options])


def script(path: Path, arguments: Sequence[str], output: tuple[Path, Path]) -> Process:
    """`python PATH ARGUMENTS`, going on; a script that it starts itself is a fork."""
    return Process(warm.start("train", arguments, output, os.environ, first=partial(_script, path)), [str(path)])


def descendants(pid: int) -> list[int]:
    """pids of the processes that stem from this one and live; the first that it started is the first."""
    return _below(pid, _living())


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return pid not in _living()


def _below(pid: int, living: Mapping[int, tuple[int, int]]) -> list[int]:
    found = [(started, child) for child, (parent, started) in living.items() if parent == pid]
    children = [child for _, child in sorted(found)]  # not by pid alone: those begin anew some day
    return [*children, *(later for child in children for later in _below(child, living))]


def _living() -> dict[int, tuple[int, int]]:
    """(parent, when it started) by pid of all processes that live."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, parent, *rest = stat.read_text().rpartition(")")[2].split()
            if state not in "ZX":
                found[int(stat.parent.name)] = int(parent), int(rest[17])
    return found


def _torchrun(options: Sequence[str]) -> None:
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    os.setsid()
    subprocess_handler.Popen = Rank  # type: ignore[attr-defined]
    run.main([*options, "-m", "toto.train", *sys.argv[1:]])
    sys.exit()


def _alone(waits_at: int) -> None:
    """In a session of its own; before the step of this number, from 1 on, it waits to be killed."""
    from toto.train import loop

    def one_step(model: Any, optimizer: Any, guard: Any, parts: Any, step: int, *rest: Any) -> Any:
        time.sleep(600 if step + 1 == waits_at else 0)
        return right(model, optimizer, guard, parts, step, *rest)

    right, loop.one_step = loop.one_step, one_step
    os.setsid()


def _rank(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    from toto import console

    for number in OWN:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["toto-train", *arguments]
    console.train()


def _script(path: Path) -> None:
    right = subprocess.Popen

    def started(args: Any, **given: Any) -> Any:
        ours = args[0] == sys.executable and str(args[1]).startswith(str(path.parent))
        return Side(args, **given) if ours else right(args, **given)

    subprocess.Popen = started  # type: ignore[assignment, misc]
    sys.path.insert(0, str(path.parent))
    sys.argv[0] = str(path)
    runpy.run_path(str(path), run_name="__main__")
    sys.exit()


def _side(words: Sequence[str], reads: int, writes: int) -> None:
    os.dup2(reads, 0)
    os.dup2(writes, 1)
    os.closerange(3, 1024)  # pipes of other sides among them, which would never end
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.argv = list(words)
    sys.path.insert(0, str(Path(words[0]).parent))
    runpy.run_path(words[0], run_name="__main__")
    sys.stdout.flush()
