"""Training sequences as values: one, or many as arrays, with where they came from looked up only when asked for.

numbers, tokens, parts  ──  hashes, patches: computed when asked for  ──  batch[i]: Sequence with its clips
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash

from toto.lazy import cached_property
from toto.shards.row import Window
from toto.shards.streaming.keyed import MASK
from toto.shards.streaming.part_reader import PartReader, Places
from toto.shards.streaming.patches import normalised, standardised


@dataclass(frozen=True)
class Sequence:
    """One training sequence: [start] + context codes + [end], and where they came from."""

    number: int  # g
    tokens: np.ndarray  # uint16 or uint32 [context + 2]
    part: str
    epoch: int  # of the part; an image sequence may end in the next one
    clips: list[Window]  # one for a video; one frame each for images

    @property
    def hash(self) -> int:
        """xxh3-64 of its little-endian ids, seeded with g; summed mod 2^64 over a step, the hash of its batch."""
        return hash_of(self.tokens, self.number)


class Origin(NamedTuple):
    """Where the sequences of one part that a batch holds came from."""

    reader: PartReader
    places: Places
    lines: np.ndarray  # int64: their numbers in the batch, ascending


class Found(NamedTuple):
    """Where the sequences of a batch lie, before they are read."""

    numbers: np.ndarray  # int64 [n]: g of each
    parts: np.ndarray  # int64 [n]: number of the part in the recipe
    origins: dict[int, Origin]  # by number of the part

    def part(self, first: int, end: int) -> "Found":
        """That of the sequences first … end - 1 of the batch."""
        origins = {}
        for part, (reader, places, lines) in self.origins.items():
            mine = slice(*np.searchsorted(lines, (first, end)).tolist())
            if mine.start < mine.stop:
                origins[part] = Origin(reader, places.take(mine), lines[mine] - first)
        return Found(self.numbers[first:end], self.parts[first:end], origins)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences of any numbers, in the order in which they were asked for. `batch[i]` is one of them."""

    numbers: np.ndarray  # int64 [n]: g of each
    tokens: np.ndarray  # uint16 or uint32 [n, context + 2]
    parts: np.ndarray  # int64 [n]: number of the part in the recipe
    names: tuple[str, ...]  # of the parts
    origins: dict[int, Origin]  # by number of the part
    pixels: np.ndarray | None = None  # uint8 [n, context, p·p·3] of a stream with pixels: the patch of each code

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> Sequence:
        if not -len(self) <= i < len(self):
            raise IndexError(f"sequence {i} of {len(self)}")
        i %= len(self)
        part = int(self.parts[i])
        origin = self.origins[part]
        j = int(np.searchsorted(origin.lines, i))
        epoch, clips = int(origin.places.epochs[j]), origin.reader.windows(origin.places, j)
        return Sequence(int(self.numbers[i]), self.tokens[i], self.names[part], epoch, clips)

    def __iter__(self) -> Iterator[Sequence]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def hashes(self) -> np.ndarray:
        """uint64 [n]: `hash` of each sequence."""
        made = (hash_of(tokens, g) for tokens, g in zip(self.tokens, self.numbers.tolist(), strict=True))
        return np.fromiter(made, np.uint64, len(self))

    @property
    def hash(self) -> int:
        """Sum of the hashes mod 2^64: of a whole step, what metrics.jsonl has for it."""
        return int(self.hashes.sum()) & MASK

    @property
    def patches(self) -> np.ndarray:
        """float32 [n, context, p·p·3]: what a model of patches reads; ValueError for a stream without pixels."""
        return normalised(self._pixels)

    @property
    def patch_targets(self) -> np.ndarray:
        """float32 [n, context, p·p·3]: what such a model regresses, every patch standardised by itself."""
        return standardised(self.patches)

    @property
    def _pixels(self) -> np.ndarray:
        if self.pixels is None:
            raise ValueError("this stream gives codes alone; open it as Stream(recipe, pixels=p), p pixels a patch")
        return self.pixels


def hash_of(tokens: np.ndarray, number: int) -> int:
    """xxh3-64 of little-endian ids, seeded with the number of their sequence."""
    little = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False)
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(little).data, number & MASK)
