"""Sources -> units of work. A unit is whole sources of one split, cut by estimated tokens: never by worker count,
engine or time, so that two runs over the same files make the same units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc

from toto.shards.hashing import json_sha256
from toto.tokenize.planned import MOMENTS, PlannedRows
from toto.tokenize.planned import PlannedSource as PlannedSource

UNITS_PER_PLAN = 1024
MIN_TOKENS, MAX_TOKENS = 128 * 1024, 32 * 1024 * 1024
MAX_SOURCES = 4096


@dataclass(frozen=True)
class Unit:
    """What one worker does in one go, and commits as a whole or not at all."""

    id: str
    split: str
    attempt: int
    sources: Sequence[PlannedSource]
    changed: frozenset[str] = frozenset()  # keys of sources that stand here as they were found, not as planned

    @property
    def estimated_frames(self) -> int:
        """Kept frames that the plan expects."""
        return int(PlannedRows.of(self.sources).frames.sum())


class Uris(Protocol):
    """Says where sources are read."""

    def of(self, sources: Sequence[PlannedSource]) -> dict[str, str]:
        """Key -> path or URI, of these."""
        ...


def cut_units(
    sources: Sequence[PlannedSource], tokens_per_frame: int, settings: dict[str, Any], attempt: int = 0
) -> Iterator[Unit]:
    """Groups sources in their order; a unit closes at its share of the tokens, at 4,096 sources, or with the split."""
    rows = PlannedRows.of(sources)
    if not len(rows):
        return
    tokens = np.cumsum(rows.frames) * tokens_per_frame
    target = min(max(int(tokens[-1]) // UNITS_PER_PLAN, MIN_TOKENS), MAX_TOKENS)
    splits = pc.run_end_encode(rows.table["split"].cast("string").combine_chunks()).run_ends.to_numpy()
    start = 0
    while start < len(rows):
        before = int(tokens[start - 1]) if start else 0
        enough = int(np.searchsorted(tokens, before + target)) + 1
        end_of_split = int(splits[np.searchsorted(splits, start, side="right")])
        end = min(enough, start + MAX_SOURCES, end_of_split)
        yield _unit(rows[start:end], settings, attempt)
        start = end


def _unit(sources: PlannedRows, settings: dict[str, Any], attempt: int) -> Unit:
    keys, sizes = (sources.table[name].to_pylist() for name in ("key", "size"))
    named: list[list[Any]] = [[key, size] for key, size in zip(keys, sizes, strict=True)]
    if MOMENTS in sources.table.column_names:
        for name, moments in zip(named, sources.table[MOMENTS].to_pylist(), strict=True):
            name.extend([] if moments is None else [moments])
    identity = {"sources": named, "settings": settings, "attempt": attempt}
    return Unit(json_sha256(identity)[:16], sources[0].split, attempt, sources)
