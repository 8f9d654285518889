"""The two errors a user can cause; every command prints them as one or two lines (see command.py)."""


class UserError(Exception):
    """Something outside the code stopped the work: a missing file, a full disk, damage. Exit code 1.

    The message says what, where and what to do, in one or two lines.
    """

    exit_code = 1


class UsageError(UserError):
    """The command line or the configuration is wrong. Exit code 2."""

    exit_code = 2
