"""The endless stream of training sequences of a recipe: the g-th one, for any g, without reading those before it.

    g ─Mixture─▶ part, n-th of it ─Order─▶ epoch, entry ─Entries─▶ shard, run ─keyed─▶ view, phase ─▶ row ─▶ ids

Every rank and every loader worker opens the same stream and asks for its own numbers, so the sequences of a step do
not depend on how many there are. Nothing here grows with the number of windows.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from toto.errors import UserError
from toto.shards.dataset import Dataset
from toto.shards.ids import CODE_OFFSET, END, IMAGE_START, VIDEO_START, id_dtype
from toto.shards.keyed import MASK, key
from toto.shards.mixture import Mixture
from toto.shards.order import Order, block_of
from toto.shards.recipe import RECIPE, Part, Recipe
from toto.shards.row import Row, Window, cut_window
from toto.shards.windows import Entries, stored_cut


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
        little = self.tokens.astype(self.tokens.dtype.newbyteorder("<"), copy=False)
        return xxhash.xxh3_64_intdigest(little.tobytes(), self.number & MASK)


class Stream:
    """The sequences of a recipe. Raises UserError where a dataset is not there, or not as it was."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._mixture = Mixture(recipe.phases)
        datasets: dict[tuple[str, str, str], Dataset] = {}
        self._parts = []
        for part in recipe.parts:
            where = (part.uri, part.dataset_id, part.split)
            if where not in datasets:
                datasets[where] = Dataset(part.uri, id=part.dataset_id, split=part.split)
            self._parts.append(_OpenPart(part, datasets[where], recipe))

    def __reduce__(self) -> tuple[Any, ...]:
        return Stream, (self.recipe,)

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

    def dataset(self, part: str) -> Dataset:
        """The snapshot that a part reads, restricted to its split."""
        return self._parts[self.parts.index(part)].dataset

    def sequence(self, g: int) -> Sequence:
        """The g-th sequence of the run; IndexError below 0."""
        part, n = self._mixture.at(g)
        return self._parts[part].sequence(g, n)

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

    def _named(self) -> list[tuple[str, "_OpenPart"]]:
        return list(zip(self.parts, self._parts, strict=True))


def open_run(run: str | Path) -> Stream:
    """The stream of a training run by its folder; UserError when it holds no recipe.json."""
    path = Path(run) / RECIPE
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no training run at {run} (no {RECIPE} there)") from None
    return Stream(Recipe.from_json(text, str(path)))


class _OpenPart:
    """A part with its dataset: its n-th sequence."""

    def __init__(self, part: Part, dataset: Dataset, recipe: Recipe) -> None:
        self.part, self.dataset, self._recipe = part, dataset, recipe
        video = part.kind == "video"
        self._cut = stored_cut(dataset, recipe.frames, recipe.stride, recipe.hop) if video else None
        self.entries = Entries(dataset, self._cut)
        self.per_sequence = 1 if video else recipe.images_per_sequence
        if self.entries.count < self.per_sequence:
            raise UserError(f"{part.name}: {dataset.store.uri} has nothing to read for it; make a recipe anew")

    def sequence(self, g: int, n: int) -> Sequence:
        """The part's n-th sequence, which is the g-th of the run."""
        first = n * self.per_sequence
        found = [self._clip(first + i) for i in range(self.per_sequence)]
        cells, clips = self._recipe.cells, [clip for _, clip in found]
        tokens = np.empty(sum(clip.frames for clip in clips) * cells + 2, self._dtype)
        tokens[0], tokens[-1] = VIDEO_START if self._cut else IMAGE_START, END
        np.concatenate([clip.tokens[1:-1] for clip in clips], out=tokens[1:-1])
        return Sequence(g, tokens, self.part.name, found[0][0], clips)

    @cached_property
    def _order(self) -> Order:
        span = self._cut.hop if self._cut else 1
        block = block_of(span * self._recipe.cells * self.dataset.views)
        return Order(self.entries.count, block, self._recipe.seed, self.part.name)

    @cached_property
    def _dtype(self) -> np.dtype:
        return id_dtype(self._vocab_size)

    @cached_property
    def _vocab_size(self) -> int:
        return int(self.dataset.tokenizer["vocab_size"])

    def _clip(self, n: int) -> tuple[int, Window]:
        """Epoch and clip of the part's n-th entry: one view of its run, its windows moved by one phase, an epoch."""
        epoch, i = self._order.at(n)
        entry = self.entries.at(i)
        run = key(self._recipe.seed, "run", self.part.name, epoch, entry.shard, entry.run)
        view = key(run, "view") % self.dataset.views
        row = self._row(entry.shard, entry.run * self.dataset.views + view)
        if self._cut is None:
            return epoch, self._checked(cut_window(row, 0, 1), row)
        start = key(run, "phase") % (entry.slack + 1) + entry.k * self._cut.hop
        return epoch, self._checked(cut_window(row, start, self._cut.frames, self._cut.stride), row)

    def _row(self, shard: int, offset: int) -> Row:
        row = self.dataset.shard_row(shard, offset)
        record, grid = row.record, self._recipe.grid
        if (record.grid_h, record.grid_w) != grid:
            raise UserError(f"{self._where(row)}: a grid of {record.grid_h}×{record.grid_w} codes instead of {grid}")
        return row

    def _checked(self, clip: Window, row: Row) -> Window:
        """The clip, when its codes are of the vocabulary: an id beyond it would end the run far from here."""
        codes, used = clip.tokens[1:-1], self._vocab_size + CODE_OFFSET
        low, high = int(codes.min()), int(codes.max())
        if low < CODE_OFFSET or high >= used:
            wrong = high if high >= used else low
            raise UserError(f"{self._where(row)}: id {wrong} outside {CODE_OFFSET} … {used - 1}; tokenize it anew")
        return clip

    def _where(self, row: Row) -> str:
        record = row.record
        return f"{self.dataset.store.uri}: {record.source}, run {record.run}, view {record.view}"
