"""Reads flatbuffers that strangers made: every offset and length is held against the bytes that are there.

A table's fields are found through its vtable, by number; a field that is not there has its default. Nothing is copied
but what is asked for. ValueError where an offset leads out, never anything else.
"""

import struct
from collections.abc import Iterator

_U16, _U32, _I32 = (struct.Struct(letter) for letter in ("<H", "<I", "<i"))


class Table:
    """One table of a flatbuffer; `at` is where it begins in `data`."""

    __slots__ = ("_at", "_data", "_fields", "_size")

    def __init__(self, data: bytes, at: int) -> None:
        vtable = at - _number(_I32, data, at)
        slots, size = _number(_U16, data, vtable), _number(_U16, data, vtable + 2)
        if slots < 4 or slots % 2 or vtable + slots > len(data) or size < 4 or at + size > len(data):
            raise ValueError("a table leads out of its flatbuffer")
        self._data, self._at, self._size = data, at, size
        self._fields = struct.unpack_from(f"<{slots // 2 - 2}H", data, vtable + 4)

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """The table that a flatbuffer begins with."""
        return cls(data, _number(_U32, data, 0))

    def number(self, field: int, letter: str, default: int = 0) -> int:
        """A scalar; `letter` is struct's."""
        place = self._place(field, struct.calcsize(letter))
        return default if place is None else int(struct.unpack_from(f"<{letter}", self._data, place)[0])

    def table(self, field: int) -> "Table | None":
        """A table inside this one."""
        place = self._target(field)
        return None if place is None else Table(self._data, place)

    def tables(self, field: int, most: int) -> "Iterator[Table]":
        """A vector of at most so many tables."""
        start, count = self.span(field, 4)
        if count > most:
            raise ValueError(f"{count} parts where at most {most} belong")
        for place in range(start, start + 4 * count, 4):
            yield Table(self._data, place + _number(_U32, self._data, place))

    def span(self, field: int, width: int) -> tuple[int, int]:
        """(where its first item begins, how many) of a vector of items of so many bytes; (0, 0) where it is not."""
        place = self._target(field)
        if place is None:
            return 0, 0
        count = _number(_U32, self._data, place)
        if place + 4 + count * width > len(self._data):
            raise ValueError("a vector leads out of its flatbuffer")
        return place + 4, count

    def numbers(self, field: int, each: int) -> tuple[int, ...]:
        """The int64 of a vector of structs that hold so many each, one after the other."""
        start, count = self.span(field, 8 * each)
        return struct.unpack_from(f"<{count * each}q", self._data, start)

    def text(self, field: int) -> bytes:
        """The bytes of a string; none where it is not there."""
        start, count = self.span(field, 1)
        return bytes(self._data[start : start + count])

    def _place(self, field: int, width: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        if not offset:
            return None
        if offset + width > self._size:
            raise ValueError("a field leads out of its table")
        return self._at + offset

    def _target(self, field: int) -> int | None:
        place = self._place(field, 4)
        return None if place is None else place + _number(_U32, self._data, place)


def _number(kind: struct.Struct, data: bytes, at: int) -> int:
    if not 0 <= at <= len(data) - kind.size:
        raise ValueError("an offset leads out of its flatbuffer")
    return int(kind.unpack_from(data, at)[0])
