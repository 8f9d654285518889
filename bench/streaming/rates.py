"""How fast an iterator of id arrays is: its first item is not counted (opening, starting workers).

Each repetition is taken by the clock and by CPU time, which a busy machine changes less: that of this process, and all
that its workers took, from their start to their end.
"""

import gc
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sides import Line, line

PAGE_IDS = 2_048  # uint16 ids of a page of memory
Pair = tuple[float, float]  # a rate by the clock, and by CPU time


def million_ids_per_second(items: Iterator[Any]) -> Pair:
    """Million ids that arrive in a second; of each page one id is looked at, so that mapped ones are really there."""
    before = _ended_workers()
    next(items)
    seen = 0
    started, worked = time.perf_counter(), time.process_time()
    for ids in items:
        flat = np.asarray(ids).reshape(-1)  # torch's tensors without a copy
        int(flat[::PAGE_IDS].max())
        seen += len(flat)
        ended = time.perf_counter()  # before workers are
    worked = time.process_time() - worked
    gc.collect()  # a loader that is done ends its workers when it goes
    cpu = worked + _ended_workers() - before
    return seen / (ended - started) / 1e6, seen / cpu / 1e6


def _ended_workers() -> float:
    """Seconds of CPU that child processes of this one took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare_both(
    what: str, unit: str, ours: Callable[[], Pair], peer: Callable[[], Pair], bar: float | None, repeats: int
) -> list[Line]:
    """Two lines: by the clock, and the same by CPU time. Ours and the peer's in turns, after one warm-up each."""
    found: tuple[list[Pair], list[Pair]] = ([], [])
    for turn in range(repeats + 1):
        for function, rates in zip((ours, peer), found, strict=True):
            rate = function()
            if turn:
                rates.append(rate)
    clock, cpu = (([rates[i] for rates in found[0]], [rates[i] for rates in found[1]]) for i in (0, 1))
    return [line(what, unit, *clock, bar), line(f"{what}, by CPU time", unit, *cpu, bar)]
