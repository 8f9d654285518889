"""A word to whoever waits for a cluster that has no room: said once, after a minute without any actor."""

import sys
import time
from collections.abc import Callable

WORD_AFTER_S = 60.0


class Waiting:
    """Told again and again whether there is one; `what`: such as "a worker"."""

    def __init__(self, what: str, after_s: float = WORD_AFTER_S) -> None:
        self._what, self._after_s = what, after_s
        self._since = time.monotonic()
        self._said = False

    def look(self, there: bool, needs: Callable[[], str] = str) -> None:
        """`needs`: what a node must have, for the message."""
        if there:
            self._since, self._said = time.monotonic(), False
        elif not self._said and time.monotonic() - self._since >= self._after_s:
            self._said = True
            print(f"waiting for a node with room for {self._what}{needs()}", file=sys.stderr, flush=True)
