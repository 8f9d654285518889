"""Values that are made once and kept while there is room: the newest asked for stay, the others go.

Of several threads that ask for one value, one makes it and the others wait. A value may also be begun in the
background; whoever asks before its turn comes makes it at once. A forked process begins with nothing kept: no lock
and no thread of its parent is waited for.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar
from weakref import WeakSet

V = TypeVar("V")
_every: "WeakSet[Kept[Any]]" = WeakSet()


class Kept(Generic[V]):
    """At most `count` values by key, of at most `nbytes` bytes by `size`; the last one asked for always stays."""

    def __init__(self, count: int, nbytes: int = 0, size: Callable[[V], int] = lambda value: 0) -> None:
        self._count, self._nbytes, self._size = count, nbytes, size
        self._forget()
        _every.add(self)

    def find(self, key: Hashable) -> V | None:
        """The value, where it is there now."""
        value = self._values.get(key)
        if value is not None:
            try:
                self._values.move_to_end(key)
            except KeyError:  # another thread gave it up just now
                pass
        return value

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """The value, made now where it is not there; raises what `make` raises."""
        mine: Future[V] | None = None
        try:
            with self._lock:
                value = self.find(key)
                if value is not None:
                    return value
                coming = self._coming.get(key)
                if coming is None or coming.cancel():
                    coming = mine = self._coming[key] = Future()
                    mine.set_running_or_notify_cancel()
            if mine is not None:
                self._fulfil(key, mine, make)
        except BaseException as error:  # Ctrl-C too, wherever it comes: others wait for this value
            self._fail(key, mine, error)
            raise
        return coming.result()

    def begin(self, key: Hashable, make: Callable[[], V], submit: Callable[[Callable[[], None]], None]) -> None:
        """Hands the making to `submit`, unless the value is there or on its way; its failure is told who asks then."""
        with self._lock:
            if key in self._values or key in self._coming:
                return
            future: Future[V] = Future()
            self._coming[key] = future

        def act() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                self._fulfil(key, future, make)
            except BaseException as error:
                self._fail(key, future, error)

        submit(act)

    @property
    def coming(self) -> int:
        """Values that are being made, or wait for it."""
        return len(self._coming)

    def _fulfil(self, key: Hashable, future: "Future[V]", make: Callable[[], V]) -> None:
        value = make()
        size = self._size(value)
        with self._lock:
            self._coming.pop(key, None)
            self._values[key] = value
            self._used += size
            while len(self._values) > 1 and (len(self._values) > self._count or self._used > self._nbytes > 0):
                self._used -= self._size(self._values.popitem(last=False)[1])
        future.set_result(value)

    def _fail(self, key: Hashable, future: "Future[V] | None", error: BaseException) -> None:
        """Tells who waits for a value that it will not come; who asks next makes it."""
        if future is None or future.done():
            return
        with self._lock:
            if self._coming.get(key) is future:
                del self._coming[key]
        future.set_exception(error)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._coming: dict[Hashable, Future[V]] = {}
        self._used = 0


def _begin_anew() -> None:
    for kept in _every:
        kept._forget()


os.register_at_fork(after_in_child=_begin_anew)
