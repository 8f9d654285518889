"""Where the seconds of a run go beside its steps: what waits for data, logs, saves, validates, draws.

Only the host's clock is read, and nothing waits for a GPU: where the device is behind, some of these seconds cost
nothing. So the sum over `wall` is the most that is lost outside of forward, backward and optimiser.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """What happens inside counts as `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._spent[name] = self._spent.get(name, 0.0) + time.perf_counter() - started

    def each(self, name: str, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time until each is there counts as `name`."""
        source = iter(values)
        while True:
            with self(name):
                try:
                    value = next(source)
                except StopIteration:
                    return
            yield value

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by name."""
        spent, self._spent = self._spent, {}
        return spent
