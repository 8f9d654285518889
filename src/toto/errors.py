"""The two errors a user can cause; every command prints them as one or two lines (see command.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something outside the code stopped the work: a missing file, a full disk, damage. Exit code 1.

    The message says what, where and what to do, in one or two lines.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line or the configuration is wrong. Exit code 2."""

    exit_code = 2


@contextmanager
def naming(place: str | Path) -> Iterator[None]:
    """An OSError from inside that names no file, as of a write to a full disk, names this place."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(place)
        raise
