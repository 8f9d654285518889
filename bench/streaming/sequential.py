"""Tokens per second in stored order, one process, everything in the page cache."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import baked
import ours
import peer_memmap
from rates import Pair, compare_both, million_ids_per_second
from sides import Line


def measure(root: Path, repeats: int) -> list[Line]:
    """Ours from the cache of inflated batches, against each; against the best library also with each one mapped anew,
    as libraries do; then ours inflating and checking every batch."""
    lines, best = [], (0.0, None)
    for peer in [*baked.peers("in stored order"), peer_memmap]:
        raw = peer is peer_memmap
        found = _compared(
            f"warm, one process, against {peer.NAME}", ours.in_order, root, peer, None if raw else 1, repeats
        )
        if not raw and found[0]["peer"] > best[0]:
            best = found[0]["peer"], peer
        lines += found
    if best[1]:
        what = f"each cached batch mapped anew, against {best[1].NAME}"
        lines += _compared(what, ours.mapped_anew, root, best[1], None, repeats)
    what = "in stored order, each batch inflated and its hash checked, against the same from the cache"

    def inflated() -> Pair:
        return million_ids_per_second(ours.inflated(root))

    def cached() -> Pair:
        return million_ids_per_second(ours.mapped_anew(root))

    return [*lines, *compare_both(what, "M ids/s", inflated, cached, None, repeats)]


def _compared(
    how: str,
    mine: Callable[[Path], Iterator[Any]],
    root: Path,
    peer: ModuleType,
    bar: float | None,
    repeats: int,
) -> list[Line]:
    folder = baked.bake(peer, root, baked.windows(root))
    return compare_both(
        f"in stored order, {how}",
        "M ids/s",
        lambda: million_ids_per_second(mine(root)),
        lambda: million_ids_per_second(peer.in_order(folder)),
        bar,
        repeats,
    )
