"""A dataset that is offered to a mixture: which split, which grid, how many sequences, or why it cannot be used."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow.compute as pc

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.dataset import Dataset
from toto.shards.snapshot import read_snapshot
from toto.shards.store import open_store
from toto.shards.streaming.windows import Entries, stored_cut

Kind = Literal["video", "image"]


@dataclass(frozen=True)
class Candidate:
    """A dataset of a mixture, restricted to its split."""

    name: str
    split: str
    dataset: Dataset


def open_candidate(name: str, uri: str, split: str | None) -> Candidate:
    """A dataset by its uri; without a `split`, its "train" or its only one, and UsageError where it has neither."""
    if split is None:
        splits = sorted(read_snapshot(open_store(uri)).value["splits"])
        if "train" not in splits and len(splits) != 1:
            raise UsageError(f"{name}: {uri} has the splits {', '.join(splits) or 'none'}; say which one")
        split = "train" if "train" in splits else splits[0]
    return Candidate(name, split, Dataset(uri, split=split))


def one_grid(opened: Sequence[Candidate]) -> tuple[int, int]:
    """The grid that all rows have; UserError where parts, or rows of a `full` crop, differ in grid or ids."""
    first = opened[0]
    grids = [_grid(part) for part in opened]
    for part, grid in zip(opened, grids, strict=True):
        for what, mine, other in (
            ("grid", grid, grids[0]),
            ("tokenizer", part.dataset.tokenizer["id"], first.dataset.tokenizer["id"]),
            ("id layout", part.dataset.info["id_layout"], first.dataset.info["id_layout"]),
        ):
            if mine != other:
                raise UserError(f"{first.name} and {part.name} differ in their {what}: {other} and {mine}")
    return grids[0]


def _grid(part: Candidate) -> tuple[int, int]:
    if not len(part.dataset):
        raise UserError(f"{part.name}: {part.dataset.store.uri} has no rows in split {part.split}")
    if part.dataset.info["settings"].get("crop") == "full":
        _refuse_changing_grids(part)
    first = part.dataset.shard_batch(0, 0)
    height, width = first.grid or (int(first.grid_h[0]), int(first.grid_w[0]))
    if not height * width:
        raise UserError(f"{part.name}: {part.dataset.store.uri} holds pixels and no codes; there is nothing to predict")
    return height, width


def _refuse_changing_grids(part: Candidate) -> None:
    """A `full` crop keeps the shape of each source: from the per-source results, so no shard is opened."""
    results = part.dataset.sources()
    results = results.filter(pc.greater(results["rows"], 0))
    shapes = set()
    columns = (results[name].to_pylist() for name in ("tokens", "rows", "run_lengths", "width", "height"))
    for tokens, rows, runs, width, height in zip(*columns, strict=True):
        frames = sum(runs) * (rows // len(runs))
        shapes.add(((tokens - 2 * rows) // frames, (width or 0) > (height or 0)))
    if len(shapes) > 1:
        raise UserError(
            f"{part.name}: the grids of {part.dataset.store.uri} differ from source to source (crop full); "
            "sequences of one length need a crop of one shape"
        )


def sequences_of(
    part: Candidate, kinds: Collection[Kind], window: tuple[int, int | None, int], per_image: int
) -> dict[Kind, int]:
    """Sequences an epoch of each of these kinds that the dataset holds; UserError where it holds too little for one.

    `window` is frames, stride in source frames, and hop in frames of a window.
    """
    found: dict[Kind, int] = {}
    longest, where = part.dataset.longest_run(), part.dataset.store.uri
    if longest and "video" in kinds:
        cut = stored_cut(part.dataset, *window)
        found["video"] = Entries(part.dataset, cut).count
        if not found["video"]:
            raise UserError(
                f"{part.name}: no window of {cut.frames} frames fits into {where}, split {part.split}: "
                f"it takes {cut.span} stored frames, and the longest run has {longest}; ask for fewer frames"
            )
    images = Entries(part.dataset, None).count
    if images and "image" in kinds:
        found["image"] = images // per_image
        if not found["image"]:
            raise UserError(
                f"{part.name}: {counted(images, 'image')} in {where}, split {part.split}; a sequence takes {per_image}"
            )
    if not found:
        raise UserError(f"{part.name}: {where}, split {part.split}, holds no {' and no '.join(sorted(kinds))}")
    return found
