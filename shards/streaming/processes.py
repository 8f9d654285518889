"""Batches of a stream, filled by several processes at once, and given in the order asked for.

    numbers ─find─▶ where they lie ─▶ shares by record batch ─pipes─▶ processes: ids into a slot ─▶ arrays of a batch

Batches are made in rounds of several. Finding is done once, here. A record batch belongs to one process, which alone
maps, checks or inflates it. Pipes carry a few numbers: where sequences lie stands in the slot before their ids
(slots.py). The processes end with the one that asks, also when that is killed with -9.
"""

import gc
import multiprocessing
import os
import select
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from toto.errors import UsageError, UserError
from toto.shards.streaming.part_reader import PartReader, Places
from toto.shards.streaming.sequences import Found, Origin
from toto.shards.streaming.slots import Slot, Slots, carve, room_for

if TYPE_CHECKING:
    from toto.shards.streaming.source import Source

AHEAD = 2  # rounds that are being filled while one is read
ROUND, ROUND_BYTES = 1_024, 16 << 20  # sequences of a round, and what they take, where one batch is not more
AT_ONCE = 2_048  # sequences that are found together: as many as the rounds ahead have; one by one it takes much longer
LOOK_S = 2.0  # a process looks this often whether who asks is still there, and who asks whether the process is
FAILED = -1
Numbers = range | np.ndarray
Share = tuple[int, int, int]  # of a process: part, place of its sequences in the slot, how many they are
Batch = TypeVar("Batch")


def batches(stream: "Source[Batch]", wanted: Iterable[Numbers], workers: int) -> Generator[Batch, None, None]:
    """`stream.sequences(numbers)` of each of these, made by so many processes. What goes wrong is raised in its turn;
    UserError where a process ends early. Closing the generator, or dropping it, ends them."""
    if workers < 1:
        raise UsageError(f"workers: {workers}; 0 reads in this process, 1 or more in others")
    fitting = max(1, min(ROUND, ROUND_BYTES // room_for(stream.shapes(1))))
    crew = _Crew(stream, fitting, workers)
    try:
        for numbers, found in _found(stream, wanted, fitting):
            count = sum(map(len, numbers))
            if found is not None and count > crew.most:
                yield from crew.given(0)
                crew.end()
                crew = _Crew(stream, max(count, 2 * crew.most), workers)
            crew.ask(numbers, found)
            yield from crew.given(AHEAD)
        yield from crew.given(0)
    finally:
        crew.end()


def _found(
    stream: "Source[Any]", wanted: Iterable[Numbers], fitting: int
) -> Iterator[tuple[list[np.ndarray], Found | None]]:
    """Rounds of batches, and where those lie; None where something goes wrong in finding them."""
    for many in _gathered(wanted, 1, AT_ONCE):
        try:
            found = stream.find(np.concatenate(many), fetch=False)
        except Exception:  # of any kind: it is raised in its turn, where they are made one by one
            yield many, None
            continue
        end = 0
        for numbers in _gathered(many, fitting, fitting):
            first, end = end, end + sum(map(len, numbers))
            yield numbers, found.part(first, end)


def _gathered(wanted: Iterable[Numbers], until: int, most: int) -> Iterator[list[np.ndarray]]:
    """Lists of batches, of at most so many sequences or of one batch: first `until`, then twice as many each time, at
    last `most`."""
    found: list[np.ndarray] = []
    count = 0
    for numbers in wanted:
        if found and (count + len(numbers) > until or len(found) == most):
            yield found
            found, count, until = [], 0, min(most, 2 * max(count, until))
        found.append(np.asarray(numbers, np.int64))
        count += len(numbers)
    if found:
        yield found


class _Round(NamedTuple):
    """Batches that are made together, where they lie, in which slot, and which processes have a share of them."""

    numbers: list[np.ndarray]
    found: Found | None  # None: something goes wrong in finding them
    slot: int
    workers: list[int]


class _Crew(Generic[Batch]):
    """Processes and slots for rounds of at most so many sequences; both are made when first needed."""

    def __init__(self, stream: "Source[Batch]", most: int, workers: int) -> None:
        self.most, self._stream, self._count = most, stream, workers
        self._waiting: deque[_Round] = deque()
        self._workers: list[_Worker] = []
        self._slots: Slots | None = None
        self._arrays_at = most * 8 * max(map(_columns, stream.readers))

    def ask(self, numbers: list[np.ndarray], found: Found | None) -> None:
        """Has a round of batches made."""
        if found is None:
            self._waiting.append(_Round(numbers, None, 0, []))
            return
        slots, count = self._slots or self._begin(), len(found.numbers)
        slot = slots.take(self._arrays_at + room_for(self._stream.shapes(count)))
        shares = self._shares(found, slots.all[slot].memory())
        for i, own in shares.items():
            self._workers[i].ask((slot, self._arrays_at, count, own))
        self._waiting.append(_Round(numbers, found, slot, list(shares)))

    def given(self, left: int) -> Iterator[Batch]:
        """The batches that were asked for before all others, until so many rounds are left."""
        while len(self._waiting) > left:
            made = self._waiting.popleft()
            told = [self._workers[i].answer() for i in made.workers]
            if made.found is None or FAILED in told:
                yield from map(self._stream.sequences, made.numbers)
            else:
                yield from self._cut(made.numbers, made.found, made.slot, max(told, default=0))
            if made.found is not None and self._slots:
                self._slots.free(made.slot)

    def end(self) -> None:
        """Ends the processes, and gives back what was shared with them."""
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.close()
        if self._slots:
            self._slots.close()
        self._workers, self._slots = [], None

    def _begin(self) -> Slots:
        """After the first finding: a fork has what was read for it."""
        slots = self._slots = Slots(AHEAD + 1, self._arrays_at + room_for(self._stream.shapes(self.most)))
        for _ in range(self._count):
            self._workers.append(_Worker(self._stream, slots.all))
        return slots

    def _shares(self, found: Found, memory: np.ndarray) -> dict[int, list[Share]]:
        """Of each process. Writes into the slot a line of int64 for each sequence, its line in the round and its
        `Places`: those of a process one behind the other."""
        at, shares = 0, dict[int, list[Share]]()
        for part, (reader, places, lines) in found.origins.items():
            of = (places.shards[:, 0] + places.batches[:, 0]) % self._count
            table = np.ndarray((len(lines), _columns(reader)), np.int64, memory, at)
            np.column_stack([lines, *places]).take(np.argsort(of, kind="stable"), 0, table)
            for i, size in enumerate(np.bincount(of).tolist()):
                if size:
                    shares.setdefault(i, []).append((part, at, size))
                at += size * table.strides[0]
        return shares

    def _cut(self, numbers: list[np.ndarray], found: Found, slot: int, ids_end: int) -> Iterator[Batch]:
        """The batches of a round."""
        assert self._slots
        shapes, lent, end = self._stream.shapes(len(found.numbers)), self._slots.lend(slot), 0
        memory = self._slots.all[slot].memory() if lent is None else lent
        arrays = carve(shapes, memory, self._arrays_at)
        for one in numbers:
            first, end = end, end + len(one)
            mine = [array[first:end] if lent is not None else array[first:end].copy() for array in arrays]
            yield self._stream.batch(found.part(first, end), mine, ids_end)


def _columns(reader: PartReader) -> int:
    """Numbers that tell where a sequence lies and goes to."""
    return 2 + (len(Places._fields) - 1) * reader.per_sequence


class _Worker:
    """One process; it answers in the order in which it is asked."""

    def __init__(self, stream: "Source[Any]", slots: list[Slot]) -> None:
        self._owner = os.getpid()
        self._pipe, theirs = multiprocessing.Pipe()
        arguments = (stream, slots, theirs)
        self._process = multiprocessing.Process(target=_work, args=arguments, name="toto-batches", daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, question: Any) -> None:
        """Has a share filled. Questions are short: the pipe holds as many as there may be."""
        with _told():
            self._pipe.send(question)

    def answer(self) -> int:
        """What `Source.fill` gave for the share that was asked for before all others, or FAILED. The pipe does not tell
        that the process has ended where another thread forked while it was being started."""
        with _told():
            while not self._pipe.poll(LOOK_S):
                if not self._process.is_alive():
                    raise EOFError
            return int(self._pipe.recv())

    def end(self) -> None:
        """Ends the process, where it is one of this process and not of the one that this was forked from."""
        if self._owner == os.getpid():
            self._process.kill()

    def close(self) -> None:
        """Waits for its end."""
        if self._owner == os.getpid():
            self._process.join()
        self._pipe.close()


def _work(stream: "Source[Any]", slots: list[Slot], pipe: Connection) -> None:
    """What a process does until it is ended. Ctrl-C reaches the owner too, which ends this one; what a fork has of its
    owner's way to take SIGTERM is not for this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_after, args=(os.getppid(),), daemon=True).start()
    gc.freeze()  # what a fork has of its owner is not looked at again: each page of it would be copied
    more, heard = select.poll(), deque[tuple[dict[int, Origin], list[np.ndarray]]]()
    more.register(pipe, select.POLLIN)
    with suppress(EOFError, OSError):
        while True:
            while not heard or more.poll(0):
                heard.append(_heard(stream, slots, *pipe.recv()))
            pipe.send(_filled(stream, *heard.popleft()))


def _leave_after(parent: int) -> None:
    """Ends this process after its owner, or the server that forked it for its owner, whatever it waits for."""
    owner = multiprocessing.parent_process()
    while os.getppid() == parent and owner is not None and owner.is_alive():
        time.sleep(LOOK_S)
    os._exit(1)


def _heard(
    stream: "Source[Any]", slots: list[Slot], slot: int, arrays_at: int, count: int, shares: list[Share]
) -> tuple[dict[int, Origin], list[np.ndarray]]:
    """Where a share lies, and the arrays of its round; what it is in is brought in the background."""
    memory, origins = slots[slot].memory(), {}
    for part, at, size in shares:
        reader = stream.readers[part]
        table = np.ndarray((size, _columns(reader)), np.int64, memory, at)
        places = Places(table[:, 1], *np.split(table[:, 2:], len(Places._fields) - 1, axis=1))
        with suppress(Exception):  # whatever it is, it is met again where the share is filled
            reader.dataset.prefetch(places.pairs(0))
        origins[part] = Origin(reader, places, table[:, 0])
    return origins, carve(stream.shapes(count), memory, arrays_at)


def _filled(stream: "Source[Any]", origins: dict[int, Origin], arrays: list[np.ndarray]) -> int:
    try:
        return stream.fill(origins, arrays)
    except Exception:  # of any kind: its batch is made anew by the reader's process, and it is raised there
        return FAILED


@contextmanager
def _told() -> Iterator[None]:
    """Says what it means that the other end of a pipe is gone."""
    try:
        yield
    except (EOFError, OSError):
        raise UserError("a reading process ended early, maybe for want of memory; try fewer workers") from None
