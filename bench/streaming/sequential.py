"""Tokens per second in stored order, one process, everything in the page cache."""

from pathlib import Path

import baked
import ours
import peer_memmap
from rates import million_ids_per_second
from sides import Line, compare


def measure(root: Path, repeats: int) -> list[Line]:
    """Ours from the cache of inflated batches, against each; then ours inflating and checking every batch."""
    lines = []
    for peer in [*baked.peers("in stored order"), peer_memmap]:
        folder = baked.bake(peer, root, baked.windows(root))
        lines.append(
            compare(
                f"in stored order, warm, one process, against {peer.NAME}",
                "M ids/s",
                lambda: million_ids_per_second(ours.in_order(root)),
                lambda peer=peer, folder=folder: million_ids_per_second(peer.in_order(folder)),
                None if peer is peer_memmap else 1,
                repeats,
            )
        )
    what = "in stored order, each batch inflated and its hash checked, against the same from the cache"

    def inflated() -> float:
        return million_ids_per_second(ours.inflated(root))

    def cached() -> float:
        return million_ids_per_second(ours.in_order(root))

    return [*lines, compare(what, "M ids/s", inflated, cached, None, repeats)]
