"""Tasks -> results, in this process or in several, in the order of the tasks.

`make` is called once in each process and gives the function for the tasks there, so that a dataset is opened once.
The processes end with this one, also when it is killed with -9: they read the end of a pipe. Ctrl-C reaches this
process alone. A process that is just beginning hears of no stop, so that it does not end in a traceback.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from toto.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
STOPS = {signal.SIGINT, signal.SIGTERM}
AHEAD = 2  # tasks a process may be ahead of the one whose result is wanted next

_function: Callable[[Any], Any]


class LostWorker(UserError):
    """A worker process was killed, or died inside a library."""


def each(
    make: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], workers: int, apart: bool = False
) -> Generator[tuple[Task, Result], None, None]:
    """Every task with its result. `make`, tasks and results are pickled where there is more than one worker, and with
    `apart`, which has a single one work in a process of its own too. LostWorker when one dies."""
    if min(workers, len(tasks)) <= 1 and not apart:
        function = make()
        yield from ((task, function(task)) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    end, keep = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _begin, (make, end))
    try:
        yield from _in_order(pool, tasks, AHEAD * workers)
    except BrokenProcessPool:
        raise LostWorker("a worker process ended early, maybe for want of memory; try fewer --workers") from None
    finally:
        keep.close()
        pool.shutdown(wait=True, cancel_futures=True)
        end.close()


@contextmanager
def stops_wait() -> Iterator[None]:
    """Ctrl-C and SIGTERM are heard at the end; a process that starts meanwhile hears them once it unblocks them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _in_order(pool: ProcessPoolExecutor, tasks: Sequence[Task], ahead: int) -> Iterator[tuple[Task, Any]]:
    waiting: deque[tuple[Task, Future[Any]]] = deque()
    for task in tasks:
        waiting.append((task, _submit(pool, task)))
        if len(waiting) >= ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


def _submit(pool: ProcessPoolExecutor, task: Any) -> "Future[Any]":
    """Starts a process where one is missing, without being stopped half way; it inherits which signals are blocked, so
    Ctrl-C is handled here."""
    with stops_wait():
        return pool.submit(_work, task)


def _begin(make: Callable[[], Callable[[Any], Any]], end: Connection) -> None:
    global _function
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_at_the_end_of, args=(end,), daemon=True).start()
    _function = make()


def _work(task: Any) -> Any:
    return _function(task)


def _leave_at_the_end_of(pipe: Connection) -> None:
    try:
        pipe.recv_bytes()
    except (EOFError, OSError):
        pass
    os._exit(1)
