"""What the four commands share: exit codes, short errors, `--debug`, `--json`.

0 finished · 1 failed · 2 wrong usage or configuration · 130 Ctrl-C · 143 SIGTERM (both after saving what can
be resumed). A signal reaches the running code as an exception, so `finally` blocks do the saving.
"""

import errno
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import repeat
from types import FrameType
from typing import Any, NoReturn

import click

from toto.console import CODES, leave, on_stop
from toto.errors import UsageError, UserError
from toto.plain import plain_lines

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again: it goes on",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again: it goes on",
    errno.EROFS: "the target is read-only; choose another with --out",
    errno.EACCES: "permission denied; choose another place or change its permissions",
    errno.EEXIST: "a file is there, where a folder is needed; choose another place",
    errno.ENOTDIR: "a file is there, where a folder is needed; choose another place",
    errno.EISDIR: "a folder, where a file is needed; choose another place",
    errno.EMFILE: "too many open files for this shell; raise its limit: ulimit -n 4096",
}
_stops: list[int] = []  # signals that came: where one reaches a library, that may make an error of its own of it
IMPORTLIB = ("importlib", "importlib._bootstrap", "importlib._bootstrap_external")
WAIT_S = 0.05
_waits = repeat(True, 200)  # a signal in the middle of an import comes again, so often at most: for 10 s
EXTRAS = {  # the command line -> what brings its packages
    "toto.tokenize.cli": "tokenize",
    "toto.shards.cli": "view",
    "toto.train.cli": "train",
    "toto.evaluate.cli": "evaluate",
}
GO_ON = "run the same command again to go on"


class Terminated(BaseException):
    """SIGTERM, as an exception: passes through `except Exception`, runs every `finally`."""


class CommandGroup(click.Group):
    """A click group whose commands all take `--debug` (adds the traceback to an error)."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        super().add_command(_with_debug(cmd), name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they were added, which is that of their use."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's own; a name that is none is told with those that are."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from toto.config_layers import unknown

            raise UsageError(unknown("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The first line of each command's help, whole: click's own list cuts it off."""
        names = self.list_commands(ctx)
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.commands[name].get_short_help_str(200)) for name in names])


class Later(click.Command):
    """A command that is imported when it is called; until then its name and first line stand for it.

    So a list of commands, a completed word or a mistyped name wait for no library. `place` is `module:name`.
    """

    def __init__(self, name: str, place: str, first_line: str) -> None:
        super().__init__(name, help=first_line)
        self._place = place

    def load(self) -> click.Command:
        """The command itself."""
        module, _, name = self._place.partition(":")
        return _with_debug(getattr(import_module(module), name))

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command itself, which click then calls in place of this."""
        return self.load().make_context(info_name, args, parent, **extra)


def _with_debug(cmd: click.Command) -> click.Command:
    if all(option.name != "debug" for option in cmd.params):  # a group of its own has it already
        cmd.params.append(
            click.Option(["--debug"], is_flag=True, expose_value=False, help="Add the traceback to an error.")
        )
    return cmd


def print_json(value: Any) -> None:
    """Ends stdout with one line that holds one JSON value (what `--json` promises)."""
    sys.stdout.write(json.dumps(value, sort_keys=True, allow_nan=False) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Prints lines that may hold strangers' names: nothing in them can steer the terminal."""
    click.echo(plain_lines(text))


def run(group: click.Command) -> NoReturn:
    """Runs a command line to its exit code; never lets a traceback of a user's mistake through."""
    # Threads that wait must sleep: where others use the cores too, spinning ones made a training step of torch 5 times
    # as slow with 4 threads on 4 busy cores, and no faster on idle ones. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    on_stop(_stop)
    warnings.formatwarning = _one_line
    sys.exit(_exit_code(group))


def _exit_code(group: click.Command) -> int:
    try:
        result = group.main(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.Abort) as stop:
        return _fail(_stopped("Ctrl-C", stop), 130)
    except Terminated as stop:
        return _fail(_stopped("SIGTERM", stop), 143)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "toto").partition(".")[0]
        extra = EXTRAS.get(getattr(group.callback, "__module__", ""))
        if package == "toto" or extra is None:
            raise
        return _fail(f"this needs {package}: pip install 'toto-video[{extra}]'", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        advice = _DISK_ERRORS.get(error.errno, error.strerror or "cannot be used")
        where = error.filename or error.strerror
        return _fail(advice if where == advice else f"{where}: {advice}", 1)
    except Exception as error:  # of whatever kind a library makes of a signal; without a signal it is raised again
        if not _stops:
            raise
        code, name = CODES[_stops[0]]
        return _fail(_stopped(name, error), code)


def _stopped(by: str, stop: BaseException) -> str:
    causes = (stop, stop.__cause__)  # click makes an Abort of a KeyboardInterrupt, with a cause that holds the notes
    notes = [note for cause in causes for note in getattr(cause, "__notes__", [])]
    return f"stopped by {by}; {' '.join(notes or [GO_ON])}"


@contextmanager
def starting_anew() -> Iterator[None]:
    """What is stopped in here leaves nothing to go on from, and the last line says so."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.add_note("nothing was written; the same command starts anew")
        raise


def _fail(message: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    click.echo(f"error: {plain_lines(message)}", err=True)
    return code


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the place in the code that it came from."""
    return f"warning: {plain_lines(str(message))}\n"


def _stop(signum: int, frame: FrameType | None) -> None:
    importer = _importer(frame)
    if importer is not None and _begins(importer):
        leave(signum, frame)
    if importer is not None and next(_waits, False):  # pyarrow, for one, swallows what is raised in an import
        signal.signal(signal.SIGALRM, lambda _, later: _stop(signum, later))
        # Needs no lock, and two signals become one. One that comes just before a call of the system that waits does not
        # wake it: so it comes on and on.
        signal.setitimer(signal.ITIMER_REAL, WAIT_S, WAIT_S)
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    _stops.append(signum)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def _importer(frame: FrameType | None) -> FrameType | None:
    """Whose import statement is being carried out, the outermost one; None where nothing is imported."""
    found, within = None, False
    while frame is not None:
        is_import = frame.f_globals.get("__name__") in IMPORTLIB
        found, within = (frame if within and not is_import else found), is_import
        frame = frame.f_back
    return found


def _begins(importer: FrameType) -> bool:
    """Whether nothing is begun that could be saved: a command's own function imports before all else."""
    caller = importer.f_back
    called_by_click = caller is not None and str(caller.f_globals.get("__name__")).startswith("click.")
    return called_by_click or importer.f_globals.get("__name__") == __name__
