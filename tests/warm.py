"""Commands in processes of their own that start warm: a server that has imported what they need forks them.

    process = start("train", ["pretrain", …], (stdout, stderr))
    process.join()

One costs as little as its work, where a fresh Python spends seconds on imports. All else is as in a fresh one: its own
memory, environment, current folder, signals and exit code; decoders that it starts are warm, too (warm_python.py).
The server is a copy of this process from before its first test (`prepare`, which conftest.py calls), so that what the
tests' modules import is there at no price; it imports the rest when it is first asked for a process.
"""

import gc
import multiprocessing
import os
import select
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import warm_python

from toto import console
from toto.command import Later

STAGES = ("tokenize", "shards", "train", "evaluate")
IMPORTED = (
    *("toto.tokenize.run", "toto.tokenize.engine_local", "toto.tokenize.calibrate", "toto.tokenize.sources.folder"),
    *("toto.train.begin", "toto.train.summary", "toto.train.checkpoint.safe_reader", "toto.evaluate.report"),
    *("torch._dynamo", "torch.utils.tensorboard.writer", "matplotlib.backends.backend_agg", "scipy.spatial", "s3fs"),
    "pandas",  # which pyarrow looks for
)

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([*IMPORTED])  # of the server that is started where nobody has called `prepare`
_launcher: Path | None = None  # of the server's commands: what they start decoders by
_why: Path | None = None  # where the server writes what it died of


def prepare() -> None:
    """Makes this process's server. To be called once, while it has no threads of its own and has opened nothing yet."""
    with socket.socket(socket.AF_UNIX) as listener:
        global _why
        address = connection.arbitrary_address("AF_UNIX")
        _why = Path(address).with_name("why")
        listener.bind(address)
        listener.listen()
        asked, alive = os.pipe()  # `asked` ends when nobody who could ask for a process is left
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # execnet's thread reads a pipe
            pid = os.fork()
        if not pid:
            os.close(alive)
            _serve(listener, asked, Path(address).parent)
        os.close(asked)
    known = forkserver._forkserver  # type: ignore[attr-defined]
    known._forkserver_address, known._forkserver_alive_fd, known._forkserver_pid = address, alive, pid


def start(
    stage: str,
    arguments: Sequence[str],
    output: tuple[Path, Path] | tuple[Connection, Connection],
    environment: Mapping[str, str],
    cwd: Path | None = None,
    first: Callable[[], None] | None = None,
) -> BaseProcess:
    """Starts the command line of a stage, or of the `demo`; stdout and stderr go to files, new or open ones. `first`,
    pickled, is called before it.
    """
    given = (stage, list(arguments), output, dict(environment), cwd or Path.cwd(), first)
    for has_ended in (False, True):
        process = _server.Process(target=_run, args=given)
        try:
            process.start()
            break
        except (EOFError, ConnectionError):  # the server ended; another is started when it is asked for
            if has_ended:
                raise
            why = _why.read_text() if _why is not None and _why.exists() else "no word"
            warnings.warn(f"the warm server had ended ({why}); another is started", stacklevel=2)
    return process


@cache
def launcher() -> Path:
    """For `sys.executable` where a test in this process has children started that may start warm (warm_python.py)."""
    idle = _server.Process(target=int)  # has the server started
    idle.start()
    idle.join()
    assert _why is not None
    return _why.with_name("python")


def _serve(listener: socket.socket, asked: int, folder: Path) -> None:
    """The server's life. It lets go of the files of the process that it is a copy of, and waits to be needed."""
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in map(int, os.listdir("/dev/fd")):
            if number not in (listener.fileno(), asked, nothing) and _is_open(number):
                os.dup2(nothing, number, inheritable=number < 3)  # closed by whoever thinks that it is theirs
        select.select([listener, asked], [], [])
        _import_all()
        global _launcher
        _launcher, decoders = warm_python.start(folder)  # kept: its stdin stays open
        gc.freeze()  # no process looks through what all of them share
        forkserver.main(listener.detach(), asked, [])
    except Exception:  # no memory to fork, say
        (folder / "why").write_text(traceback.format_exc())
    finally:
        os._exit(0)


def _import_all() -> None:
    """What commands import, the first of them in a process sooner or later."""
    for module in IMPORTED:
        import_module(module)
    for stage in STAGES:
        for command in import_module(f"toto.{stage}.cli").cli.commands.values():
            if isinstance(command, Later):
                command.load()


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:  # of the listing itself
        return False
    return True


def _run(
    stage: str,
    arguments: list[str],
    output: tuple[Path, Path] | tuple[Connection, Connection],
    environment: dict[str, str],
    cwd: Path,
    first: Callable[[], None] | None,
) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as in any other process; the server's children inherit its
    for number, place in enumerate(output, start=1):
        opened = isinstance(place, Connection)
        os.dup2(place.fileno() if opened else os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["toto-eval" if stage == "evaluate" else f"toto-{stage}", *arguments]
    if stage == "tokenize" and _launcher is not None:
        sys.executable = str(_launcher)
    if first is not None:
        first()
    getattr(console, stage)()
