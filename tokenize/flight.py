"""Rows whose codes are on their way: oldest first, over all sources that a worker has begun, bounded in bytes.

    decode ─▶ blocks ─▶ encoder (maybe another process)
                 └─▶ row, closed ─▶ Flight ─▶ its codes are there ─▶ the spool of its source

A worker need not wait for one picture's codes before it decodes the next picture. Rows leave in the order in which
they came, so the order inside a unit does not depend on what comes back first.
"""

from collections import deque
from collections.abc import Callable


class Flight:
    """Holds closed rows until more than `limit` bytes of frames and pixels wait; 0: each row leaves at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._rows: deque[tuple[int, Callable[[], None]]] = deque()

    def add(self, size: int, settle: Callable[[], None]) -> None:
        """Takes a row of so many bytes; `settle` waits for its codes and puts the row where it belongs."""
        self._rows.append((size, settle))
        self._bytes += size
        self._settle_above(self._limit)

    def land(self) -> None:
        """Settles all rows."""
        self._settle_above(0)

    def _settle_above(self, limit: int) -> None:
        while self._bytes > limit:
            size, settle = self._rows.popleft()
            self._bytes -= size
            settle()
