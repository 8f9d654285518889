"""Sources -> units of work. A unit is whole sources of one split, cut by estimated tokens: never by worker count,
engine or time, so that two runs over the same files make the same units."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from toto.shards.hashing import json_sha256
from toto.tokenize.sources.base import Source

UNITS_PER_PLAN = 1024
MIN_TOKENS, MAX_TOKENS = 128 * 1024, 32 * 1024 * 1024
MAX_SOURCES = 4096


@dataclass(frozen=True, slots=True)
class PlannedSource:
    """A source as the plan holds it."""

    key: str
    split: str
    kind: str
    label: int | None
    size: int
    mtime_us: int
    etag: str
    estimated_frames: int  # kept frames
    moments: tuple[int, ...] | None = None  # decoded frames that its row holds, where annotations name them


@dataclass(frozen=True)
class Unit:
    """What one worker does in one go, and commits as a whole or not at all."""

    id: str
    split: str
    attempt: int
    sources: Sequence[PlannedSource]

    @property
    def estimated_frames(self) -> int:
        """Kept frames that the plan expects."""
        return sum(source.estimated_frames for source in self.sources)


def planned(source: Source, estimated_frames: int) -> PlannedSource:
    """A listed source with its estimate."""
    return PlannedSource(
        source.key,
        source.split,
        source.kind,
        source.label,
        source.size,
        source.mtime_us,
        source.etag,
        estimated_frames,
        source.moments,
    )


def cut_units(
    sources: list[PlannedSource], tokens_per_frame: int, settings: dict[str, Any], attempt: int = 0
) -> Iterator[Unit]:
    """Groups sources in their order; a unit closes at its share of the tokens, at 4,096 sources, or with the split."""
    total = sum(source.estimated_frames for source in sources) * tokens_per_frame
    target = min(max(total // UNITS_PER_PLAN, MIN_TOKENS), MAX_TOKENS)
    group: list[PlannedSource] = []
    tokens = 0
    for source in sources:
        if group and (source.split != group[0].split or tokens >= target or len(group) >= MAX_SOURCES):
            yield _unit(group, settings, attempt)
            group, tokens = [], 0
        group.append(source)
        tokens += source.estimated_frames * tokens_per_frame
    if group:
        yield _unit(group, settings, attempt)


def _unit(sources: list[PlannedSource], settings: dict[str, Any], attempt: int) -> Unit:
    named = [[s.key, s.size] if s.moments is None else [s.key, s.size, list(s.moments)] for s in sources]
    identity = {"sources": named, "settings": settings, "attempt": attempt}
    return Unit(json_sha256(identity)[:16], sources[0].split, attempt, tuple(sources))
