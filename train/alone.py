"""One training run in a folder at a time: two would remove each other's unfinished checkpoints."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from toto.errors import UserError, naming

LOCK = ".lock"
LEASE_S = 120.0  # in which a file server forgets the locks of a machine that is gone
POLL_S = 0.5


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder of a run; UserError when another process has it.

    A killed holder lets go by itself, whatever children it leaves behind: they do not inherit a lock of POSIX. What
    torchrun starts again waits for LEASE_S first, as those before it may have been on a machine that is gone.
    """
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")
    with file:
        _lock(file.fileno(), folder, LEASE_S if "TORCHELASTIC_RUN_ID" in os.environ else 0.0)
        try:
            yield
        except BaseException:
            if [path.name for path in folder.iterdir()] == [LOCK]:  # refused before anything was written
                (folder / LOCK).unlink()
                folder.rmdir()
            raise


def is_held(folder: Path) -> bool:
    """Whether another process holds the folder of a run."""
    try:
        with open(folder / LOCK, "r+") as file:
            return not _locked(file.fileno())
    except OSError:  # nobody ever held it
        return False


def _lock(file: int, folder: Path, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    said = False
    while not _locked(file):
        if time.monotonic() >= end:
            raise UserError(f"another process trains in {folder}; wait for it, or choose another --out")
        if not said:
            click.echo(f"another process trains in {folder}; waiting {patience_s:.0f} s at most for its end", err=True)
            said = True
        time.sleep(POLL_S)


def _locked(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX leaves it open which
        return False
    return True
