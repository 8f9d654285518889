"""Failures of the way to a file, not of the file: tried again after a pause, going on where they struck."""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

PAUSES_S = (0.5, 2.0, 8.0)
REMOTE_PAUSES_S = (*PAUSES_S, 30.0)  # a store that restarts or asks for less is back after half a minute
ERRNOS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.EMFILE,
        errno.ENFILE,
    }
)

T = TypeVar("T")


class TransientError(Exception):
    """Reading failed for a reason that may pass: a network drive, an object store, a full table of files."""


def pauses_for(uri: str) -> tuple[float, ...]:
    """Before each further try of a source: those of an object store or web server have one more."""
    return REMOTE_PAUSES_S if "://" in uri and "file://" not in uri else PAUSES_S


def resumed(
    start: Callable[[], Iterable[T]],
    pauses_s: Sequence[float] = PAUSES_S,
    sleep: Callable[[float], None] | None = None,
) -> Iterator[T]:
    """The items of `start()`; after a TransientError it starts anew and skips what was already given.

    `sleep`: how to wait; time.sleep by default.

    `start` must give the same items each time. Raises the last TransientError when the pauses are used up.
    """
    given = 0
    for pause_s in (*pauses_s, None):
        try:
            for position, item in enumerate(start()):
                if position >= given:
                    yield item
                    given += 1
            return
        except TransientError:
            if pause_s is None:
                raise
            (sleep or time.sleep)(pause_s)
