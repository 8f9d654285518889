"""What gives sequences by their numbers, in the steps in which a batch of them is made.

    numbers ─find─▶ where they lie ─fill─▶ arrays of these shapes ─batch─▶ the batch, as the reader has it

Several processes may fill the lines of one batch (processes.py); the other steps are those of the reader's process.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from toto.shards.streaming.part_reader import PartReader
from toto.shards.streaming.processes import batches
from toto.shards.streaming.sequences import Found, Origin
from toto.shards.streaming.slots import Shape, carve

Batch = TypeVar("Batch")


class Source(ABC, Generic[Batch]):
    """Sequences by number; it is pickled for processes that are spawned."""

    def batches(self, wanted: Iterable[range | np.ndarray], workers: int = 0) -> Generator[Batch, None, None]:
        """`sequences` of each of these, in their order, made by so many processes; 0: by this one. Close the generator,
        or drop it, to end them."""
        return batches(self, wanted, workers) if workers else (self.sequences(numbers) for numbers in wanted)

    def sequences(self, numbers: range | np.ndarray) -> Batch:
        """The sequences of these numbers, int64 [n], neighbours or not; many at once take less time than one by one."""
        found = self.find(numbers)
        arrays = carve(self.shapes(len(found.numbers)))
        return self.batch(found, arrays, self.fill(found.origins, arrays))

    @property
    @abstractmethod
    def readers(self) -> tuple[PartReader, ...]:
        """What reads each part, in the order of the recipe."""

    @abstractmethod
    def find(self, numbers: range | np.ndarray, fetch: bool = True) -> Found:
        """Where they lie. `fetch`: what they are in, and what comes next, is brought in the background."""

    @abstractmethod
    def shapes(self, count: int) -> list[Shape]:
        """Of the arrays that so many sequences take; a sequence is a line of each."""

    @abstractmethod
    def fill(self, origins: Mapping[int, Origin], arrays: Sequence[np.ndarray]) -> int:
        """Copies sequences, all of a batch or some, into their lines; one more than the highest id that may be among
        them."""

    @abstractmethod
    def batch(self, found: Found, arrays: Sequence[np.ndarray], ids_end: int) -> Batch:
        """The batch whose arrays were filled; UserError where an id is no code's."""
