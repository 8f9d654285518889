"""The language of the pipe between a decoder's child and its parent: a JSON header, then raw bytes.

    4 bytes: length of the header · header (JSON, UTF-8; "bytes": how many follow) · the bytes of the arrays

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

MAX_HEADER = 1 << 20
MAX_BODY = 1 << 31
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
    """Cuts the bytes that arrive on a pipe into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, data: bytes) -> None:
        self._bytes += data

    def take(self) -> tuple[Message, bytes] | None:
        """The next message and its body; None when it is not whole yet. Raises ValueError for nonsense."""
        start = _LENGTH.size
        if len(self._bytes) < start:
            return None
        end = start + _LENGTH.unpack_from(self._bytes)[0]
        if end > start + MAX_HEADER:
            raise ValueError("a header of more than 1 MiB")
        if len(self._bytes) < end:
            return None
        message = json.loads(self._bytes[start:end])
        if not isinstance(message, dict) or not {"type", "bytes"} <= message.keys():
            raise ValueError("a header without type or length")
        length = int(message["bytes"])
        if not 0 <= length <= MAX_BODY:
            raise ValueError("a body of more than 2 GiB")
        if len(self._bytes) < end + length:
            return None
        body = bytes(self._bytes[end : end + length])
        del self._bytes[: end + length]
        return message, body


def send_part(fd: int, part: Block | SourceInfo) -> None:
    """Sends what `decode` yields."""
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
    send(fd, header, [array for array in (part.frames, part.pixels) if array is not None])


def to_block(message: Message, body: bytes) -> Block:
    """The Block of a "block" message, arrays read-only. Raises ValueError when shapes and bytes differ."""
    arrays: dict[str, np.ndarray | None] = {}
    offset = 0
    for name in ("frames", "pixels"):
        arrays[name] = None
        if (shape := message[name]) is not None:
            count = math.prod(shape)
            arrays[name] = np.frombuffer(body, np.uint8, count, offset).reshape(shape)
            offset += count
    if offset != len(body):
        raise ValueError(f"{len(body)} bytes for arrays of {offset}")
    times = message["pts_us"]
    x, y, width, height = message["crop"]
    return Block(
        run=message["run"],
        view=message["view"],
        frames=arrays["frames"],
        pixels=arrays["pixels"],
        index=np.array(message["index"], np.int64),
        pts_us=None if times is None else np.array(times, np.int64),
        crop=(x, y, width, height),
        mirrored=message["mirrored"],
    )
