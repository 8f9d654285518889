"""Runs one of toto's commands as a person would, shows what it prints, and keeps it.

What a command says on stdout is kept; its progress and errors go straight to the terminal.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from toto.command import Terminated
from toto.errors import UserError


@dataclass(frozen=True)
class Step:
    """A command that was run."""

    title: str  # why it was run
    line: str  # as one would type it
    output: str  # what it wrote to stdout
    seconds: float
    exit_code: int


def run_step(title: str, words: Sequence[str]) -> Step:
    """Runs a console script to its end; UserError when it is not installed. A failure is in `exit_code`."""
    line = shlex.join(words)
    click.echo(f"\n{click.style(title, bold=True)}\n{click.style('$', dim=True)} {click.style(line, fg='cyan')}")
    started = time.monotonic()
    with subprocess.Popen(
        [find_script(words[0]), *words[1:]], stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as process:
        output, exit_code = _follow(process)
    return Step(title, line, output, time.monotonic() - started, exit_code)


def find_script(name: str) -> str:
    """The console script of the Python that runs now, else the one on PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise UserError(f"{name} is not installed beside {sys.executable}; run `make setup`, or pip install -e .")
    return found


def _follow(process: subprocess.Popen[str]) -> tuple[str, int]:
    """Passes stdout on, line by line. A command that is stopped is given the time to save what it has."""
    lines = []
    assert process.stdout is not None, "opened as a pipe"
    try:
        for line in process.stdout:
            click.echo(line, nl=False)
            lines.append(line)
        return "".join(lines), process.wait()
    except Terminated:
        process.terminate()
        raise  # leaving the context waits for it
    except KeyboardInterrupt:  # the terminal has told the command too
        process.wait()
        raise
