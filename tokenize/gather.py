"""Blocks of many workers -> batches of the tokenizer's own size -> their codes, each to whom it belongs.

    worker A: 16 frames ─┐                                    ┌─▶ codes of A's 16
    worker B:  1 frame  ─┼─▶ queue of one shape ─▶ a batch ───┼─▶ codes of B's 1
    worker C: 16 frames ─┘   (blocks may be cut)   encode     └─▶ codes of C's 16, when the rest is done

A batch is filled up with zeros only when nothing else came within PATIENCE_S. A tokenizer without a size of its own
takes what is there, at most AT_ONCE pictures: its codes do not depend on their number.
"""

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from toto.tokenize.encoder import encode_padded
from toto.tokenizers import Tokenizer

PATIENCE_S = 0.004  # a tenth of the time that a GPU takes for a batch of 256
AT_ONCE = 64

Shape = tuple[int, ...]


@dataclass
class _Block:
    """Frames of one caller; `taken` of them are in some batch."""

    frames: np.ndarray
    done: asyncio.Future[np.ndarray]
    taken: int = 0
    codes: list[np.ndarray] = field(default_factory=list)


class Gatherer:
    """Encodes for many callers at once; one thread of its own holds the tokenizer while it works."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._size = tokenizer.batch or AT_ONCE
        self._patience_s = PATIENCE_S if tokenizer.batch else 0.0
        self._queues: dict[Shape, deque[_Block]] = {}
        self._frames: dict[Shape, int] = {}  # that wait, of each shape
        self._full = asyncio.Event()
        self._work: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "encode")
        self.encoded = self.filled = 0  # pictures asked for, and zeros beside them

    async def encode(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [n, H, W, 3] -> int32 codes [n, h, w]; raises what the tokenizer raises."""
        block = _Block(frames, asyncio.get_running_loop().create_future())
        shape = frames.shape[1:]
        self._queues.setdefault(shape, deque()).append(block)
        self._frames[shape] = self._frames.get(shape, 0) + len(frames)
        if self._frames[shape] >= self._size:
            self._full.set()
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._until_empty())
        return await block.done

    async def _until_empty(self) -> None:
        while self._queues:
            if max(self._frames.values()) < self._size and self._patience_s:
                await self._wait_a_little()
            shape = max(self._frames, key=lambda shape: self._frames[shape] >= self._size)  # a full one, or the oldest
            await self._encode(shape)

    async def _wait_a_little(self) -> None:
        self._full.clear()
        try:
            await asyncio.wait_for(self._full.wait(), self._patience_s)
        except TimeoutError:
            return

    async def _encode(self, shape: Shape) -> None:
        parts = self._take(shape)
        batch = np.concatenate([block.frames[start:stop] for block, start, stop in parts])
        self.encoded += len(batch)
        self.filled += -len(batch) % (self._tokenizer.batch or 1)
        loop = asyncio.get_running_loop()
        try:
            codes = await loop.run_in_executor(self._thread, encode_padded, self._tokenizer, batch)
        except Exception as error:
            for block, _, _ in parts:
                if not block.done.done():
                    block.done.set_exception(error)
            return
        first = 0
        for block, start, stop in parts:
            block.codes.append(codes[first : first + stop - start])
            first += stop - start
            if stop == len(block.frames) and not block.done.done():
                block.done.set_result(np.concatenate(block.codes))

    def _take(self, shape: Shape) -> list[tuple[_Block, int, int]]:
        """The next batch of a shape: (block, first, last + 1) in the order in which they came."""
        queue, room = self._queues[shape], self._size
        parts = []
        while queue and room:
            block = queue[0]
            start = block.taken
            block.taken = stop = min(len(block.frames), start + room)
            room -= stop - start
            parts.append((block, start, stop))
            if stop == len(block.frames):
                queue.popleft()
        self._frames[shape] -= self._size - room
        if not queue:
            del self._queues[shape], self._frames[shape]
        return parts
