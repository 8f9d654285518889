"""A few threads that work ahead of the reader: made when first needed, by each process for itself.

They end with the process and hold no lock that anybody waits for; what has not begun when it is needed, its reader does
at once. At the process's end what has not begun is dropped, and what has is given a second: a thread inside Arrow's C++
must not be cut off. After that nothing is begun here any more.
"""

import atexit
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")
THREADS = 8  # requests on their way at a time
LAST_S = 1.0


class Background:
    """Runs what is submitted, in the order given, in at most `THREADS` threads."""

    def __init__(self) -> None:
        self._finished = False
        self.begin_anew()

    def begin_anew(self) -> None:
        """In a forked process: threads do not survive that."""
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def submit(self, act: Callable[[], None]) -> None:
        """Has `act` run soon, or never where the process ends; what it raises is lost."""
        if self._finished:
            return
        self._queue.put(act)
        if len(self._threads) < THREADS:
            thread = Thread(target=self._work, args=(self._queue,), name="toto-ahead", daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        """Drops what has not begun, and waits a little for what has."""
        self._finished = True
        try:
            while True:
                self._queue.get_nowait()
        except Empty:
            pass
        for _ in self._threads:
            self._queue.put(None)
        until = time.monotonic() + LAST_S
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        self._threads = []

    @staticmethod
    def _work(queue: "SimpleQueue[Callable[[], None] | None]") -> None:
        while (act := queue.get()) is not None:
            try:
                act()
            except Exception:  # who waits for the value is told by its future; the thread goes on for the others
                continue


BACKGROUND = Background()
atexit.register(BACKGROUND.finish)
os.register_at_fork(after_in_child=BACKGROUND.begin_anew)


def ahead(jobs: Iterable[Callable[[], T]], depth: int) -> Iterator[T]:
    """The results of the jobs in their order, while the next `depth` are being worked on. A forked process that goes on
    with them does by itself what its parent had begun."""
    process = os.getpid()
    waiting: deque[tuple[Callable[[], T], Future[T]]] = deque()
    try:
        for job in jobs:
            waiting.append((job, _begun(job)))
            if len(waiting) > depth:
                yield _result(*waiting.popleft(), process)
        while waiting:
            yield _result(*waiting.popleft(), process)
    finally:
        for _, future in waiting if process == os.getpid() else ():
            future.cancel()


def _result(job: Callable[[], T], future: "Future[T]", process: int) -> T:
    """What the job gives: done here where no thread of this process is at it."""
    return job() if process != os.getpid() or future.cancel() else future.result()


def _begun(job: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()

    def act() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(job())
        except BaseException as error:
            future.set_exception(error)

    BACKGROUND.submit(act)
    return future
