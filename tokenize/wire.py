"""The language of the pipe between a decoder's child and its parent: a JSON header, then raw bytes.

    4 bytes: length of the header · header (JSON, UTF-8; "bytes": how many follow) · the bytes of the arrays

Arrays may lie in a slot of shared memory instead (slots.py): "slot" and "slot_bytes" say which, and how many bytes.
The child handles strangers' files, so nothing from it is unpickled and every length is checked.
"""

import json
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from toto.tokenize.clip import Block, SourceInfo
from toto.tokenize.slots import Slots

MAX_HEADER = 1 << 20
MAX_BODY = 1 << 31
READ_BYTES = 1 << 16  # at once, of what may be headers
_LENGTH = struct.Struct(">I")

Message = dict[str, Any]


def send(fd: int, message: Message, arrays: Sequence[np.ndarray] = ()) -> None:
    """Writes one message whole. Raises OSError (BrokenPipeError when nobody reads any more)."""
    body = [np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays if array.size]
    header = json.dumps({**message, "bytes": sum(map(len, body))}).encode()
    for part in (memoryview(_LENGTH.pack(len(header)) + header), *body):
        while part:
            part = part[os.write(fd, part) :]


class Inbox:
    """Cuts the bytes that arrive on a pipe into messages. Most of a body is read to where it stays: no copy of it."""

    def __init__(self) -> None:
        self._loose = bytearray()  # from the next header on
        self._message: Message | None = None  # the header of the body that is being filled
        self._body = memoryview(bytearray())
        self._filled = 0

    def read(self, fd: int) -> bool:
        """Takes in what the pipe holds, waiting for the first byte; False at its end."""
        if self._filled < len(self._body):
            count = os.readv(fd, [self._body[self._filled :]])
            self._filled += count
            return count > 0
        data = os.read(fd, READ_BYTES)
        self.feed(data)
        return bool(data)

    def feed(self, data: bytes | bytearray) -> None:
        """Takes in the next bytes."""
        count = min(len(data), len(self._body) - self._filled)
        self._body[self._filled : self._filled + count] = data[:count]
        self._filled += count
        self._loose += data[count:]

    def take(self) -> tuple[Message, memoryview] | None:
        """The next message and its body; None when it is not whole yet. Raises ValueError for nonsense."""
        if self._message is None:
            self._message = self._header()
        if self._message is None or self._filled < len(self._body):
            return None
        taken = self._message, self._body.toreadonly()
        self._message, self._body, self._filled = None, memoryview(bytearray()), 0
        return taken

    def _header(self) -> Message | None:
        """The next header, once it is whole; what came of its body is put there."""
        start = _LENGTH.size
        if len(self._loose) < start:
            return None
        end = start + _LENGTH.unpack_from(self._loose)[0]
        if end > start + MAX_HEADER:
            raise ValueError("a header of more than 1 MiB")
        if len(self._loose) < end:
            return None
        message = json.loads(self._loose[start:end])
        if not isinstance(message, dict) or not {"type", "bytes"} <= message.keys():
            raise ValueError("a header without type or length")
        length = message["bytes"]
        if not (isinstance(length, int) and 0 <= length <= MAX_BODY):
            raise ValueError("a body of no length, or of more than 2 GiB")
        self._body = np.empty(length, np.uint8).data
        came, self._loose = self._loose[end:], bytearray()
        self.feed(came)
        return message


def send_part(fd: int, part: Block | SourceInfo, slots: Slots) -> None:
    """Sends what `decode` yields; arrays by a slot, where they fit into one."""
    if isinstance(part, SourceInfo):
        send(fd, {"type": "info", "info": asdict(part)})
        return
    header = {
        "type": "block",
        "run": part.run,
        "view": part.view,
        "index": part.index.tolist(),
        "pts_us": None if part.pts_us is None else part.pts_us.tolist(),
        "crop": part.crop,
        "mirrored": part.mirrored,
        "frames": None if part.frames is None else part.frames.shape,
        "pixels": None if part.pixels is None else part.pixels.shape,
    }
    frames = None if part.frames is None else part.frames.transpose(0, 3, 1, 2)  # as it lies in memory
    arrays = [array for array in (frames, part.pixels) if array is not None]
    slot = slots.put(arrays)
    if slot is None:
        send(fd, header, arrays)
    else:
        send(fd, {**header, "slot": slot, "slot_bytes": sum(array.size for array in arrays)})


def to_block(message: Message, body: memoryview) -> Block:
    """The Block of a "block" message, arrays read-only. Raises ValueError when shapes and bytes differ."""
    frames = pixels = None
    offset = 0
    if (shape := message["frames"]) is not None:
        n, height, width, channels = shape
        planes = np.frombuffer(body, np.uint8, math.prod(shape)).reshape(n, channels, height, width)
        frames, offset = planes.transpose(0, 2, 3, 1), planes.size
    if (shape := message["pixels"]) is not None:
        pixels = np.frombuffer(body, np.uint8, math.prod(shape), offset).reshape(shape)
        offset += pixels.size
    if offset != len(body):
        raise ValueError(f"{len(body)} bytes for arrays of {offset}")
    times = message["pts_us"]
    x, y, width, height = message["crop"]
    return Block(
        run=message["run"],
        view=message["view"],
        frames=frames,
        pixels=pixels,
        index=np.array(message["index"], np.int64),
        pts_us=None if times is None else np.array(times, np.int64),
        crop=(x, y, width, height),
        mirrored=message["mirrored"],
    )
