"""Memory that a decoder's child shares with its parent: what blocks hold passes through it, cheaper than by a pipe.

    child: a free slot ─▶ the bytes ─▶ a message that names the slot ─▶ parent: copies them, and says that it is free

It is used again for block after block: new pages cost more than what they hold. It has no name, so nothing of it is
left behind, and its size is sealed, so no child can take a page away from under its parent. Where a system has no such
memory, and for blocks that are too large, everything goes through the pipe (see wire.py).
"""

import fcntl
import mmap
import os
import queue
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

SLOTS = 2  # one that is being filled, one that is being read
SLOT_BYTES = 4 << 20  # 16 frames of 256 x 256 take 3 MiB; pages that nobody writes take no memory


class GivenSlots:
    """The parent's side, of one child."""

    def __init__(self) -> None:
        self.place = ""  # what the child opens; "" where there is no such memory
        self._handle = _create()
        self._data = np.empty((0, 0), np.uint8)
        if self._handle is not None:
            self.place = f"/proc/{os.getpid()}/fd/{self._handle}"
            self._data = _mapped(self._handle, mmap.PROT_READ)

    def copy(self, slot: Any, nbytes: Any) -> memoryview:
        """The first bytes of a slot, in memory of their own. Raises ValueError where there are not so many."""
        numbers = isinstance(slot, int) and isinstance(nbytes, int)
        if not (numbers and 0 <= slot < len(self._data) and 0 <= nbytes <= SLOT_BYTES):
            raise ValueError(f"{nbytes!r} bytes in slot {slot!r}")
        return self._data[slot, :nbytes].copy().data.toreadonly()

    def close(self) -> None:
        """Gives the handle back; the memory goes with the last process that has it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class Slots:
    """The child's side. `place` as of GivenSlots; where it cannot be opened, nothing fits."""

    def __init__(self, place: str) -> None:
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._data = np.empty((0, 0), np.uint8)
        with suppress(OSError):
            handle = os.open(place, os.O_RDWR | os.O_CLOEXEC)
            self._data = _mapped(handle, mmap.PROT_READ | mmap.PROT_WRITE)
            os.close(handle)
        for slot in range(len(self._data)):
            self.free(slot)

    def free(self, slot: int) -> None:
        """The parent needs its bytes no longer."""
        self._free.put(slot)

    def put(self, arrays: Sequence[np.ndarray]) -> int | None:
        """Writes uint8 arrays one after the other into a slot, once one is free; None where they do not fit."""
        if not len(self._data) or sum(array.size for array in arrays) > SLOT_BYTES:
            return None
        slot, at = self._free.get(), 0
        for array in arrays:
            self._data[slot, at : at + array.size].reshape(array.shape)[...] = array
            at += array.size
        return slot


def _create() -> int | None:
    """A handle of new memory; None where the system has none that can be sealed."""
    if not hasattr(os, "memfd_create"):
        return None
    with suppress(OSError):
        handle = os.memfd_create("toto-blocks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(handle, SLOTS * SLOT_BYTES)
            fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            return handle
        except OSError:
            os.close(handle)
    return None


def _mapped(handle: int, access: int) -> np.ndarray:
    """uint8 [SLOTS, SLOT_BYTES]."""
    return np.frombuffer(mmap.mmap(handle, SLOTS * SLOT_BYTES, prot=access), np.uint8).reshape(SLOTS, SLOT_BYTES)
