"""Kept frames into runs: 0…63 are run 0, 64…127 run 1, …, and a rest under 16 joins the run before it."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

SHORTEST_REST = 16  # a shorter rest is not a run of its own
LONGEST_RUN = 65_535  # n_frames of a row is uint16

T = TypeVar("T")


def cut_runs(items: Iterable[T], run_frames: int | None) -> Iterator[tuple[int, T]]:
    """(run, item) for each item, in order, as soon as the item's run is certain: at most 15 are held back.

    Runs have `run_frames` items, the last one up to 15 more (fewer where runs are shorter than 16). None: one
    run, and a next one only after 65,535 items.
    """
    whole = min(run_frames or LONGEST_RUN, LONGEST_RUN)
    rest = 1 if whole + SHORTEST_REST > LONGEST_RUN else min(SHORTEST_REST, whole)
    run, length = 0, 0
    held: list[T] = []
    for item in items:
        if length < whole:
            length += 1
            yield run, item
            continue
        held.append(item)
        if len(held) == rest:
            run, length = run + 1, rest
            yield from ((run, waiting) for waiting in held)
            held = []
    yield from ((run, waiting) for waiting in held)


def groups(items: Iterable[tuple[int, T]], size: int) -> Iterator[tuple[int, list[T]]]:
    """Consecutive items of one run in lists of at most `size`."""
    run, group = 0, list[T]()
    for of_run, item in items:
        if group and (of_run != run or len(group) == size):
            yield run, group
            group = []
        run = of_run
        group.append(item)
    if group:
        yield run, group
