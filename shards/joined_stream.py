"""The training sequences of joined datasets: each as two tokenizers made it, or as codes beside pixels.

    g ─Stream of the left datasets, over rows that have a partner─▶ places, ids ─▶ the partners' places, ids, patches

Where every row has a partner, the left half is what `Stream` of the left recipe gives, sequence by sequence. Nothing
but the right half's ids is read for it.
"""

import json
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as List
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.shards.dataset import Dataset
from toto.shards.hashing import json_sha256
from toto.shards.ids import CODE_OFFSET, id_dtype
from toto.shards.join import Joined
from toto.shards.recipe import Part, Recipe, make_recipe
from toto.shards.stream import Stream
from toto.shards.streaming.candidate import Candidate, one_grid
from toto.shards.streaming.keyed import MASK
from toto.shards.streaming.pairs import PairIndex, Partner
from toto.shards.streaming.part_reader import PartReader
from toto.shards.streaming.position import Position
from toto.shards.streaming.sequences import Found, Origin, Sequence, SequenceBatch
from toto.shards.streaming.shares import Weight
from toto.shards.streaming.slots import Shape
from toto.shards.streaming.source import Source
from toto.shards.streaming.vocabulary import refuse_foreign_ids

FORMAT = 1


@dataclass(frozen=True)
class JoinedRecipe:
    """A recipe of the left datasets, and of each of its parts the right one, pinned as the left one is."""

    left: Recipe
    right: tuple[tuple[str, str], ...]  # (uri, dataset id) of each part

    @property
    def id(self) -> str:
        """16 hex digits; the same id gives the same g-th pair for every g."""
        return json_sha256({"left": self.left.id, "right": [dataset_id for _, dataset_id in self.right]})[:16]

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps({"format": FORMAT, "left": json.loads(self.left.to_json()), "right": self.right}) + "\n"

    @staticmethod
    def from_json(text: str | bytes, where: str = "joined recipe") -> "JoinedRecipe":
        """The recipe of such a text; UserError where it is not one."""
        try:
            value = json.loads(text)
            left = Recipe.from_json(json.dumps(value["left"]), where)
            right = tuple((str(uri), str(dataset_id)) for uri, dataset_id in value["right"])
            if value["format"] != FORMAT or len(right) != len(left.parts):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{where}: not a recipe of joined datasets that toto wrote, or damaged") from None
        return JoinedRecipe(left, right)


def make_joined_recipe(
    sources: List[tuple[str, str, str, Weight, str | None]],
    frames: int,
    stride: int | None,
    seed: int,
    batch_sequences: int,
    **more: Any,
) -> JoinedRecipe:
    """The recipe for these (name, left uri, right uri, weight, split of the left one); the rest as of `make_recipe`."""
    left = make_recipe(
        [(name, uri, weight, split) for name, uri, _, weight, split in sources],
        *(frames, stride, seed, batch_sequences),
        **more,
    )
    uris = {name: uri for name, _, uri, _, _ in sources}
    ids = {uri: Dataset(uri).dataset_id for uri in uris.values()}
    right = [uris[part.name if part.name in uris else part.name.rpartition(":")[0]] for part in left.parts]
    return JoinedRecipe(left, tuple((uri, ids[uri]) for uri in right))


@dataclass(frozen=True)
class JoinedBatch:
    """Pairs of sequences of any numbers; `batch[i]` is one of them."""

    left: SequenceBatch
    right: SequenceBatch  # tokens of start and end alone where the right datasets have no codes

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, i: int) -> tuple[Sequence, Sequence]:
        return self.left[i], self.right[i]

    def __iter__(self) -> Iterator[tuple[Sequence, Sequence]]:
        return (self[i] for i in range(len(self)))

    @property
    def pixels(self) -> SequenceBatch:
        """The half that has `pixels`, `patches` and `patch_targets`, where the stream was asked for them."""
        return self.left if self.right.pixels is None else self.right

    @property
    def hash(self) -> int:
        """Sum of the hashes of both halves mod 2^64."""
        return self.left.hash + self.right.hash & MASK


class JoinedStream(Source[JoinedBatch]):
    """The pairs of a joined recipe. UserError where datasets do not fit, or are not as they were.

    `left` is the stream of the left halves alone.
    """

    def __init__(self, recipe: JoinedRecipe, pixels: int | None = None) -> None:
        """`pixels`: the side of patches, in kept pixels, of the right datasets if they keep any, else of the left."""
        self.recipe, self._patch = recipe, pixels
        known: dict[tuple[str, ...], Joined] = {}  # videos and images of one dataset are two parts
        joined = [_joined(part, *pinned, known) for part, pinned in zip(recipe.left.parts, recipe.right, strict=True)]
        rights = [pair.right for pair in joined]
        of_right = pixels is not None and all(right.info["settings"].get("keep_pixels") for right in rights)
        only = {part.name: PairIndex(pair) for part, pair in zip(recipe.left.parts, joined, strict=True)}
        self.left = Stream(recipe.left, None if of_right else pixels, only)
        self.tokenizer = rights[0].tokenizer  # of the right halves
        self.grid = _grid(recipe.left, rights)  # of the right halves; (0, 0) where they have no codes
        self._right_patch = pixels if of_right else None
        beside = replace(recipe.left, grid=self.grid)
        self._pixel_recipe = beside if beside.cells else recipe.left
        self.context = beside.context  # codes of a right half
        self._partners = [
            Partner(reader, pair, beside, self._pixel_recipe.grid)
            for reader, pair in zip(self.left.readers, joined, strict=True)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        return JoinedStream, (self.recipe, self._patch)

    @property
    def used_ids(self) -> int:
        """Ids of the right halves are 0 … used_ids - 1."""
        return int(self.tokenizer["vocab_size"]) + CODE_OFFSET

    def sequence(self, g: int) -> tuple[Sequence, Sequence]:
        """The g-th pair of the run; IndexError below 0 and from 2^48 on."""
        return self.sequences(range(g, g + 1))[0]

    @property
    def readers(self) -> tuple[PartReader, ...]:
        """What reads the left half of each part, in the order of the recipe."""
        return self.left.readers

    def find(self, numbers: range | np.ndarray, fetch: bool = True) -> Found:
        """Where their left halves lie. `fetch`: what those are in, and what comes next, is brought ahead."""
        return self.left.find(numbers, fetch)

    def shapes(self, count: int) -> list[Shape]:
        """Of the arrays that so many pairs take: those of the left halves, right ids [count, context + 2], and patches
        uint8 [count, context, p·p·3] where the right half has them."""
        ids = id_dtype(int(self.tokenizer["vocab_size"]))
        shapes: list[Shape] = [*self.left.shapes(count), ((count, self.context + 2), ids)]
        if self._right_patch:
            width = 3 * self._right_patch**2
            shapes.append(((count, self._pixel_recipe.context, width), np.dtype(np.uint8)))
        return shapes

    def fill(self, origins: Mapping[int, Origin], arrays: List[np.ndarray]) -> int:
        """Copies pairs, all of a batch or some, into their lines; one more than the highest id that may be among those
        of left halves. UserError where two halves are not of the same frames."""
        left, (tokens, *pixels) = self._halves(arrays)
        ids_end = self.left.fill(origins, left)
        for part, (_, places, lines) in origins.items():
            partner = self._partners[part]
            beside = partner.beside(places)
            partner.check(places, beside)
            partner.copy(beside, tokens, lines)
            if pixels and self._right_patch:
                partner.copy_pixels(beside, pixels[0], lines, self._right_patch)
        return ids_end

    def batch(self, found: Found, arrays: List[np.ndarray], ids_end: int) -> JoinedBatch:
        """The pairs whose arrays were filled; UserError where an id is no code's."""
        mine, (tokens, *pixels) = self._halves(arrays)
        left, origins = self.left.batch(found, mine, ids_end), {}
        for part, (_, places, lines) in found.origins.items():
            partner = self._partners[part]
            origins[part] = Origin(partner, partner.beside(places), lines)
        right = SequenceBatch(found.numbers, tokens, found.parts, left.names, origins, *pixels)
        refuse_foreign_ids(right, self.used_ids)
        return JoinedBatch(left, right)

    def _halves(self, arrays: List[np.ndarray]) -> tuple[List[np.ndarray], List[np.ndarray]]:
        lefts = len(self.left.shapes(0))
        return arrays[:lefts], arrays[lefts:]

    def sequences_per_epoch(self) -> dict[str, int]:
        """Sequences in which every window, or image, that has a partner comes once."""
        return self.left.sequences_per_epoch()

    def counts(self, g: int) -> dict[str, int]:
        """Sequences of each part among the first g."""
        return self.left.counts(g)

    def epochs(self, g: int) -> dict[str, float]:
        """How often each part was seen whole after g sequences."""
        return self.left.epochs(g)


class JoinedSequences(Position):
    """Pairs `consumed` … `total` - 1 of a stream, for any loader of things with `len()` and `[i]`, torch's too.

    `[i]` is {"left", "right"}, ids as they are stored, and "pixels" uint8 [context, p·p·3] where the stream has them.
    Read it in order: i is the order of training.
    """

    def __init__(self, stream: JoinedStream, total: int, consumed: int = 0) -> None:
        super().__init__(stream.recipe.id, total, consumed)
        self.stream = stream

    def __getitem__(self, i: int) -> Mapping[str, np.ndarray]:
        return self.__getitems__([i])[0]

    def __getitems__(self, wanted: List[int]) -> list[dict[str, np.ndarray]]:
        """Several at once; torch's DataLoader asks for a batch this way."""
        batch = self.stream.sequences(self.numbers(wanted))
        columns = {"left": batch.left.tokens, "right": batch.right.tokens}
        if batch.pixels.pixels is not None:
            columns["pixels"] = batch.pixels.pixels
        return [{name: column[i] for name, column in columns.items()} for i in range(len(batch))]


def _joined(part: Part, uri: str, dataset_id: str, known: dict[tuple[str, ...], Joined]) -> Joined:
    """A part's rows and their partners, in any split of the right dataset."""
    where = (part.uri, part.dataset_id, part.split, uri, dataset_id)
    if where not in known:
        left, right = Dataset(part.uri, id=part.dataset_id, split=part.split), Dataset(uri, id=dataset_id)
        known[where] = left.join(right)
    if not len(known[where]):
        raise UserError(f"{part.name}: {part.uri}, split {part.split}, and {uri} have no row in common")
    return known[where]


def _grid(recipe: Recipe, rights: List[Dataset]) -> tuple[int, int]:
    """Rows and columns of the right halves' codes; UserError where those differ, or there is neither code nor pixel."""
    if any(right.tokenizer["vocab_size"] for right in rights):
        named = zip(recipe.parts, rights, strict=True)
        return one_grid([Candidate(part.name, "", right) for part, right in named])
    return 0, 0
