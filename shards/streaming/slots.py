"""Memory that other processes fill and this one reads, and that is used again when nobody holds what was in it.

    free ─take─▶ being filled ─lend─▶ arrays of the reader, who drops them ─▶ free

New pages cost more than the ids that they hold, and so does a copy: the reader has the memory itself, where enough is
left for what is to be filled. It is there from when it is first taken, and has no name, so nothing of it is left
behind.
"""

import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from toto.errors import UserError

ALIGNED = 64  # bytes: where arrays begin
Shape = tuple[tuple[int, ...], np.dtype]


def carve(shapes: Sequence[Shape], memory: np.ndarray | None = None, at: int = 0) -> list[np.ndarray]:
    """Arrays of these shapes and types, new or one behind the other in uint8 memory from a place on."""
    if memory is None:
        return [np.empty(*shape) for shape in shapes]
    places = [at + room_for(shapes[:i]) for i in range(len(shapes))]
    return [np.ndarray(*shape, memory, place) for shape, place in zip(shapes, places, strict=True)]


def room_for(shapes: Sequence[Shape]) -> int:
    """Bytes that `carve` takes."""
    return sum(-(-int(np.prod(shape)) * dtype.itemsize // ALIGNED) * ALIGNED for shape, dtype in shapes)


class Slot:
    """One piece of memory for this process and those that it starts."""

    def __init__(self, nbytes: int) -> None:
        if hasattr(os, "memfd_create"):
            handle = os.memfd_create("toto-batches")
        else:  # macOS
            with tempfile.TemporaryFile() as file:
                handle = os.dup(file.fileno())
        try:
            os.ftruncate(handle, nbytes)
            self._map(handle)
        except OSError:
            os.close(handle)
            raise

    def _map(self, handle: int) -> None:
        self._handle, self._data, self._there, self._lost = handle, mmap.mmap(handle, 0), 0, False
        self._lent: weakref.ref[np.ndarray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that is being spawned."""
        return _mapped, (DupFd(self._handle),)

    def memory(self) -> np.ndarray:
        """All of it, uint8."""
        return np.frombuffer(self._data, np.uint8)

    def lend(self) -> np.ndarray:
        """The same for the reader: whatever array is made of it keeps it."""
        memory = self.memory()
        self._lent = weakref.ref(memory)
        return memory

    def have(self, nbytes: int) -> None:
        """Has the first bytes there: OSError where there is no room, and not a signal later."""
        if nbytes > self._there and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._handle, 0, nbytes)
        self._there = max(self._there, nbytes)

    @property
    def is_out(self) -> bool:
        """Whether the reader holds it, or a process may that was forked while the reader did."""
        return self._lost or (self._lent is not None and self._lent() is not None)

    def lose(self) -> None:
        """Before a fork: what is out stays out."""
        self._lost = self.is_out

    def close(self) -> None:
        """Gives the handle back; the memory goes with the last array in it."""
        os.close(self._handle)


def _mapped(handle: Any) -> Slot:
    slot = Slot.__new__(Slot)
    slot._map(handle.detach())
    return slot


class Slots:
    """Slots for so many things that are being filled at a time, one that is being read, and one that is still held."""

    def __init__(self, busy: int, nbytes: int) -> None:
        self.all: list[Slot] = []
        self._busy, self._taken = busy, set[int]()
        try:
            for _ in range(busy + 2):
                self.all.append(Slot(nbytes))
        except OSError as error:
            self.close()
            raise _no_room(nbytes, error) from None
        _every.add(self)

    def take(self, nbytes: int) -> int:
        """Number of a slot that nobody holds, with so many bytes there; UserError where there is no room."""
        found = next(i for i, slot in enumerate(self.all) if i not in self._taken and not slot.is_out)
        try:
            self.all[found].have(nbytes)
        except OSError as error:
            raise _no_room(nbytes, error) from None
        self._taken.add(found)
        return found

    def lend(self, number: int) -> np.ndarray | None:
        """What was filled, the reader's own as long as it holds any of it; None where too little would be left."""
        left = sum(not slot.is_out for slot in self.all) - 1
        return self.all[number].lend() if left >= self._busy else None

    def free(self, number: int) -> None:
        """May be taken again, once nobody holds it."""
        self._taken.discard(number)

    def close(self) -> None:
        """Gives all handles back."""
        for slot in self.all:
            slot.close()
        self.all = []


def _no_room(nbytes: int, error: OSError) -> UserError:
    wanted = f"{nbytes:,} bytes of shared memory for reading processes"
    return UserError(f"{wanted}: {error.strerror or error}; try smaller batches")


_every: weakref.WeakSet[Slots] = weakref.WeakSet()


def _lose() -> None:
    for slots in list(_every):
        for slot in slots.all:
            slot.lose()


os.register_at_fork(before=_lose)
