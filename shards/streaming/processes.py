"""Batches of a stream, made by several processes: in the order asked for, whichever process makes one.

    numbers of batch i ─pipe─▶ process i mod W: ids ─▶ its slot of shared memory ─▶ copied out when i's turn comes

The shared memory is used again for batch after batch: new pages cost more than the ids that they hold. It has no name,
so nothing of it is left behind. The processes end with the one that asks, also when that is killed with -9.
"""

import gc
import mmap
import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd
from typing import TYPE_CHECKING, Any

import numpy as np

from toto.errors import UsageError, UserError
from toto.shards.streaming.sequences import Origin, SequenceBatch

if TYPE_CHECKING:
    from toto.shards.stream import Stream

SLOTS = 2  # batches of a process: one that is being made, one that waits for its turn
LOOK_S = 2.0  # a process looks this often whether who asks is still there
UNREAD_BYTES = 32 << 10  # of a question; a pipe holds them while nobody reads
Numbers = range | np.ndarray


def batches(stream: "Stream", wanted: Iterable[Numbers], workers: int) -> Generator[SequenceBatch, None, None]:
    """`stream.sequences(numbers)` of each of these, made by so many processes. What goes wrong in one is raised here,
    in its turn; UserError where one ends early. Closing the generator, or dropping it, ends them."""
    if workers < 1:
        raise UsageError(f"workers: {workers}; 0 reads in this process, 1 or more in others")
    waiting: deque[tuple[_Worker, Numbers]] = deque()
    crew: list[_Worker] = []
    try:
        for i, numbers in enumerate(wanted):
            if len(crew) < workers:
                crew.append(_Worker(stream, max(1, len(numbers))))
            made = [_Worker.answer(*waiting.popleft())] if len(waiting) == SLOTS * workers else []
            crew[i % workers].ask(numbers)
            waiting.append((crew[i % workers], numbers))
            yield from made
        while waiting:
            yield _Worker.answer(*waiting.popleft())
    finally:
        for worker in crew:
            worker.end()
        for worker in crew:
            worker.close()


class _Worker:
    """One process, and the memory that it shares with this one; it answers in the order in which it is asked."""

    def __init__(self, stream: "Stream", most: int) -> None:
        """`most` sequences fit into a slot; larger batches come through the pipe."""
        self._stream, self._owner, self._asked, self._answered = stream, os.getpid(), 0, 0
        self._memory = _Memory(SLOTS, most * stream.sequence_bytes)
        self._early: deque[Any] = deque()  # answers that were taken from the pipe before their turn
        self._pipe, theirs = multiprocessing.Pipe()
        arguments = (stream, self._memory, theirs)
        self._process = multiprocessing.Process(target=_work, args=arguments, name="toto-batches", daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, numbers: Numbers) -> None:
        """Has a batch made; at most SLOTS may be asked for before one is answered. Before a question that the pipe does
        not hold, the process is heard out: it would wait for its answer to be read, and nobody would read."""
        with _told():
            is_long = isinstance(numbers, np.ndarray) and numbers.nbytes > UNREAD_BYTES
            while is_long and len(self._early) < self._asked - self._answered:
                self._early.append(self._pipe.recv())
            self._pipe.send((numbers, self._asked % SLOTS))
        self._asked += 1

    def answer(self, numbers: Numbers) -> SequenceBatch:
        """The batch that was asked for before all others, in memory of its own."""
        with _told():
            found = self._early.popleft() if self._early else self._pipe.recv()
        if isinstance(found, Exception):
            raise found
        parts, origins, room = found
        tokens, pixels = room or self._stream.room(len(numbers), self._memory.slot(self._answered % SLOTS))
        self._answered += 1
        return SequenceBatch(
            numbers=np.asarray(numbers, np.int64),
            tokens=tokens.copy(),
            parts=parts,
            names=self._stream.parts,
            origins={part: Origin(self._stream.readers[part], *where) for part, where in origins.items()},
            pixels=None if pixels is None else pixels.copy(),
        )

    def end(self) -> None:
        """Ends the process, where it is one of this process and not of the one that this was forked from."""
        if self._owner == os.getpid():
            self._process.kill()

    def close(self) -> None:
        """Waits for its end, and gives back what was shared with it."""
        if self._owner == os.getpid():
            self._process.join()
        self._pipe.close()
        self._memory.close()


class _Memory:
    """Slots of memory for this process and one that it starts."""

    def __init__(self, slots: int, nbytes: int) -> None:
        if hasattr(os, "memfd_create"):
            handle = os.memfd_create("toto-batches")
        else:  # macOS
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        nbytes = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            os.ftruncate(handle, slots * nbytes)
            if hasattr(os, "posix_fallocate"):  # an error here, where there is no room, and not a signal later
                os.posix_fallocate(handle, 0, slots * nbytes)
            self._map(handle, nbytes)
        except OSError as error:
            os.close(handle)
            wanted = f"{slots * nbytes:,} bytes of shared memory for a reading process"
            raise UserError(f"{wanted}: {error.strerror or error}; try fewer workers or smaller batches") from None

    def _map(self, handle: int, nbytes: int) -> None:
        self._handle, self._nbytes, self._data = handle, nbytes, mmap.mmap(handle, 0)

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that is being spawned."""
        return _mapped, (DupFd(self._handle), self._nbytes)

    def slot(self, i: int) -> memoryview:
        """The i-th slot."""
        return memoryview(self._data)[i * self._nbytes : (i + 1) * self._nbytes]

    def close(self) -> None:
        """Gives the handle back; the memory goes with the last array in it."""
        os.close(self._handle)


def _mapped(handle: Any, nbytes: int) -> _Memory:
    memory = _Memory.__new__(_Memory)
    memory._map(handle.detach(), nbytes)
    return memory


def _work(stream: "Stream", memory: _Memory, pipe: Connection) -> None:
    """What a process does until it is ended. Ctrl-C reaches the owner too, which ends this one; what a fork has of its
    owner's way to take SIGTERM is not for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_after, args=(os.getppid(),), daemon=True).start()
    gc.freeze()  # what a fork has of its owner is not looked at again: each page of it would be copied
    with suppress(EOFError, OSError):
        while True:
            pipe.send(_made(stream, memory, *pipe.recv()))


def _leave_after(parent: int) -> None:
    """Ends this process after its owner, or the server that forked it for its owner, whatever it waits for."""
    owner = multiprocessing.parent_process()
    while os.getppid() == parent and owner is not None and owner.is_alive():
        time.sleep(LOOK_S)
    os._exit(1)


def _made(stream: "Stream", memory: _Memory, numbers: Numbers, slot: int) -> Any:
    """What `_Worker.answer` needs, or what went wrong."""
    fits = len(numbers) * stream.sequence_bytes <= len(memory.slot(slot))
    try:
        batch = stream.sequences(numbers, memory.slot(slot) if fits else None)
    except Exception as error:  # whatever it is, it is the reader's to see: raised there, where the batch was asked for
        return _portable(error)
    origins = {part: (origin.places, origin.lines) for part, origin in batch.origins.items()}
    return batch.parts, origins, None if fits else (batch.tokens, batch.pixels)


def _portable(error: Exception) -> Exception:
    """The error; its name and text where it is none of those that can be sent."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # of any kind: an error's own __reduce__ and __init__ run here, a library's as well as a user's
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def _told() -> Iterator[None]:
    """Says what it means that the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, OSError):
        raise UserError("a reading process ended early, maybe for want of memory; try fewer workers") from None
