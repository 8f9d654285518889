"""The endless stream of training sequences of a recipe: the g-th one, for any g, without reading those before it.

    g ─Mixture─▶ part, n-th of it ─Order─▶ epoch, entry ─Entries─▶ shard, run ─keyed─▶ view, phase ─▶ row ─▶ ids

Every rank and every loader worker opens the same stream and asks for its own numbers, so the sequences of a step do
not depend on how many there are. Nothing here grows with the number of windows.
"""

from collections.abc import Mapping
from collections.abc import Sequence as List
from pathlib import Path
from typing import Any

import numpy as np

from toto.errors import UsageError, UserError
from toto.lazy import cached_property
from toto.shards.dataset import Dataset
from toto.shards.ids import CODE_OFFSET, id_dtype
from toto.shards.recipe import RECIPE, Recipe
from toto.shards.streaming.alike import alike
from toto.shards.streaming.mixture import Mixture
from toto.shards.streaming.part_reader import PartReader
from toto.shards.streaming.sequences import Found, Origin, Sequence, SequenceBatch
from toto.shards.streaming.slots import Shape
from toto.shards.streaming.source import Source
from toto.shards.streaming.vocabulary import refuse_foreign_ids
from toto.shards.streaming.windows import Index


class Stream(Source[SequenceBatch]):
    """The sequences of a recipe. Raises UserError where a dataset is not there, or not as it was."""

    def __init__(self, recipe: Recipe, pixels: int | None = None, only: Mapping[str, Index] | None = None) -> None:
        """`pixels`: the side of patches, in kept pixels, that come beside the codes (`SequenceBatch.patches`).
        `only`: by name of the part, which of its rows count (joined_stream.py)."""
        if pixels is not None and pixels < 1:
            raise UsageError(f"pixels: {pixels}; patches have a side of at least 1")
        self.recipe, self._patch, self._only = recipe, pixels, only or {}
        self._mixture = Mixture(recipe.phases)
        datasets: dict[tuple[str, str, str], Dataset] = {}
        self._parts = []
        for part in recipe.parts:
            where = (part.uri, part.dataset_id, part.split)
            if where not in datasets:
                datasets[where] = Dataset(part.uri, id=part.dataset_id, split=part.split)
            self._parts.append(PartReader(part, datasets[where], recipe, self._only.get(part.name)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Stream, (self.recipe, self._patch, self._only)

    @property
    def context(self) -> int:
        """Codes of a sequence; it has context + 2 ids."""
        return self.recipe.context

    @property
    def cells(self) -> int:
        """Codes of a frame."""
        return self.recipe.cells

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a frame's codes."""
        return self.recipe.grid

    @property
    def tokenizer(self) -> dict[str, Any]:
        """What made the codes of every part."""
        return self._parts[0].dataset.tokenizer

    @property
    def used_ids(self) -> int:
        """Ids are 0 … used_ids - 1: the codes and the four special ids."""
        return int(self.tokenizer["vocab_size"]) + CODE_OFFSET

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts, in the order of the recipe."""
        return tuple(part.name for part in self.recipe.parts)

    @property
    def readers(self) -> tuple[PartReader, ...]:
        """What reads each part, in the order of the recipe."""
        return tuple(self._parts)

    def dataset(self, part: str) -> Dataset:
        """The snapshot that a part reads, restricted to its split."""
        return self._parts[self.parts.index(part)].dataset

    def sequence(self, g: int) -> Sequence:
        """The g-th sequence of the run; IndexError below 0 and from 2^48 on."""
        return self.sequences(range(g, g + 1))[0]

    def find(self, numbers: range | np.ndarray, fetch: bool = True) -> Found:
        """Where they lie. `fetch`: what they are in, and what comes next, is brought in the background."""
        g = np.asarray(numbers, np.int64)
        parts, n = self._mixture.many(g)
        readers = self._parts
        alikes = ((part, readers[part], lines) for part, lines in alike(parts))
        return Found(g, parts, {p: Origin(reader, reader.find(n[lines], fetch), lines) for p, reader, lines in alikes})

    def shapes(self, count: int) -> list[Shape]:
        """Of the arrays that so many sequences take: ids [count, context + 2], and patches uint8 [count, context,
        p·p·3] of a stream with pixels."""
        shapes: list[Shape] = [((count, self.context + 2), self._dtype)]
        if self._patch:
            shapes.append(((count, self.context, 3 * self._patch**2), np.dtype(np.uint8)))
        return shapes

    def fill(self, origins: Mapping[int, Origin], arrays: List[np.ndarray]) -> int:
        """Copies sequences, all of a batch or some, into their lines of its arrays; one more than the highest id that
        may be among them."""
        tokens, *pixels = arrays
        ids_end = 0
        for reader, places, lines in origins.values():
            ids_end = max(ids_end, reader.copy(places, tokens, lines))
            if pixels and self._patch:
                reader.copy_pixels(places, pixels[0], lines, self._patch)
        return ids_end

    def batch(self, found: Found, arrays: List[np.ndarray], ids_end: int) -> SequenceBatch:
        """The batch whose arrays were filled; UserError where an id is no code's."""
        tokens, *pixels = arrays
        batch = SequenceBatch(found.numbers, tokens, found.parts, self.parts, found.origins, *pixels)
        if ids_end > self.used_ids:
            refuse_foreign_ids(batch, self.used_ids)
        return batch

    def sequences_per_epoch(self) -> dict[str, int]:
        """Sequences in which every window, or image, of a part comes once."""
        return {name: part.entries.count // part.per_sequence for name, part in self._named()}

    def counts(self, g: int) -> dict[str, int]:
        """Sequences of each part among the first g."""
        return dict(zip(self.parts, map(int, self._mixture.counts(g)), strict=True))

    def epochs(self, g: int) -> dict[str, float]:
        """How often each part was seen whole after g sequences."""
        counts = self.counts(g)
        return {name: counts[name] * part.per_sequence / part.entries.count for name, part in self._named()}

    @cached_property
    def _dtype(self) -> np.dtype:
        return id_dtype(int(self.tokenizer["vocab_size"]))

    def _named(self) -> list[tuple[str, PartReader]]:
        return list(zip(self.parts, self._parts, strict=True))


def open_run(run: str | Path) -> Stream:
    """The stream of a training run by its folder; UserError when it holds no recipe.json."""
    path = Path(run) / RECIPE
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no training run at {run} (no {RECIPE} there); `toto-train pretrain` makes one") from None
    return Stream(Recipe.from_json(text, str(path)))
