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
from types import FrameType
from typing import Any, NoReturn

import click

from toto.errors import UserError
from toto.plain import plain_lines

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again: it goes on",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again: it goes on",
    errno.EROFS: "the target is read-only; choose another with --out",
    errno.EACCES: "permission denied; choose another place or change its permissions",
}
_stops: list[int] = []  # signals that came: where one reaches a library, that may make an error of its own of it
STOPPED = "stopped by {}; run the same command again to go on"


class Terminated(BaseException):
    """SIGTERM, as an exception: passes through `except Exception`, runs every `finally`."""


class CommandGroup(click.Group):
    """A click group whose commands all take `--debug` (adds the traceback to an error)."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        if all(option.name != "debug" for option in cmd.params):  # a group of its own has it already
            cmd.params.append(
                click.Option(["--debug"], is_flag=True, expose_value=False, help="Add the traceback to an error.")
            )
        super().add_command(cmd, name)


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
    signal.signal(signal.SIGTERM, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as behind nohup
        signal.signal(signal.SIGINT, _stop)
    warnings.formatwarning = _one_line
    sys.exit(_exit_code(group))


def _exit_code(group: click.Command) -> int:
    try:
        result = group.main(standalone_mode=False)
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.Abort):
        return _fail(STOPPED.format("Ctrl-C"), 130)
    except Terminated:
        return _fail(STOPPED.format("SIGTERM"), 143)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UserError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        advice = _DISK_ERRORS.get(error.errno, error.strerror or "cannot be used")
        return _fail(f"{error.filename or error.strerror}: {advice}", 1)
    except Exception:  # of whatever kind a library makes of a signal; without a signal it is raised again
        if not _stops:
            raise
        name, code = ("SIGTERM", 143) if _stops[0] == signal.SIGTERM else ("Ctrl-C", 130)
        return _fail(STOPPED.format(name), code)


def _fail(message: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    click.echo(f"error: {plain_lines(message)}", err=True)
    return code


def _one_line(message: Warning | str, *_: Any, **__: Any) -> str:
    """A warning without the place in the code that it came from."""
    return f"warning: {plain_lines(str(message))}\n"


def _stop(signum: int, frame: FrameType | None) -> None:
    _stops.append(signum)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt
