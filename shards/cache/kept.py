"""Values that are made once and kept while there is room: the newest asked for stay, the others go.

Of several threads that ask for one value, one makes it and the others wait. A value may also be begun in the
background; whoever asks before its turn comes makes it at once. A forked process has what its parent had kept, and
makes by itself what was on its way there: no lock and no thread of its parent is waited for.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
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
        mine: _Coming[V] | None = None
        try:
            with self._lock:
                value = self.find(key)
                if value is not None:
                    return value
                coming = self._coming.get(key)
                if coming is None or not coming.begun:
                    coming = mine = self._coming[key] = _Coming(begun=True)
            if mine is not None:
                self._fulfil(key, mine, make)
        except BaseException as error:  # Ctrl-C too, wherever it comes: others wait for this value
            if mine is not None:
                self._fail(key, mine, error)
            raise
        return coming.result()

    def begin(self, key: Hashable, make: Callable[[], V], submit: Callable[[Callable[[], None]], None]) -> None:
        """Hands the making to `submit`, unless the value is there or on its way; its failure is told who asks then."""
        with self._lock:
            if self.has(key):
                return
            coming: _Coming[V] = _Coming(begun=False)
            self._coming[key] = coming

        def act() -> None:
            with self._lock:
                if self._coming.get(key) is not coming:  # who asked for it is at it
                    return
                coming.begun = True
            try:
                self._fulfil(key, coming, make)
            except BaseException as error:
                self._fail(key, coming, error)

        submit(act)

    def has(self, key: Hashable) -> bool:
        """Whether the value is there, or on its way."""
        return key in self._values or key in self._coming

    @property
    def coming(self) -> int:
        """Values that are being made, or wait for it."""
        return len(self._coming)

    def _fulfil(self, key: Hashable, coming: "_Coming[V]", make: Callable[[], V]) -> None:
        value = make()
        size = self._size(value)
        with self._lock:
            self._coming.pop(key, None)
            self._values[key] = value
            self._used += size
            while len(self._values) > 1 and (len(self._values) > self._count or self._used > self._nbytes > 0):
                self._used -= self._size(self._values.popitem(last=False)[1])
        coming.end(value, None)

    def _fail(self, key: Hashable, coming: "_Coming[V]", error: BaseException) -> None:
        """Tells who waits for a value that it will not come; who asks next makes it."""
        if coming.ended:
            return
        with self._lock:
            if self._coming.get(key) is coming:
                del self._coming[key]
        coming.end(None, error)

    def _forget(self) -> None:
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """In a forked process: another thread may have been anywhere in the methods above."""
        self._lock = threading.Lock()
        self._coming: dict[Hashable, _Coming[V]] = {}
        self._used = sum(map(self._size, self._values.values()))


class _Coming(Generic[V]):
    """A value that is being made, or waits for it, and whoever waits for it."""

    def __init__(self, begun: bool) -> None:
        self.begun, self.ended = begun, False
        self._value: V | None = None
        self._error: BaseException | None = None
        self._open = threading.Lock()
        self._open.acquire()

    def end(self, value: V | None, error: BaseException | None) -> None:
        """It is there, or has failed."""
        if not self.ended:
            self._value, self._error, self.ended = value, error, True
            self._open.release()

    def result(self) -> V:
        """The value, once it is there; raises what its making raised."""
        with self._open:
            pass
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


def _begin_anew() -> None:
    for kept in _every:
        kept._begin_anew()


os.register_at_fork(after_in_child=_begin_anew)
