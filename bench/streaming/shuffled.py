"""Shuffled windows of 16 frames per second (ids [256, 4098] a batch), warm, in one process and by 4 workers."""

from pathlib import Path
from types import ModuleType

import baked
import ours
import peer_memmap
from rates import million_ids_per_second
from sides import Line, compare, line

WINDOW_IDS = 4_098
WANTED_A_CORE = 20_000


def measure(root: Path, repeats: int) -> list[Line]:
    """Against each peer and against raw mapped ids; the line for the best of the libraries is wanted at 2×."""
    lines = []
    for workers in (0, 4):
        who = f"{workers} workers" if workers else "one process"
        against = [
            _compared(f"shuffled 16-frame windows, {who}, against {peer.NAME}", peer, root, workers, None, repeats)
            for peer in baked.peers(f"shuffled windows, {who}")
        ]
        best = max((found for found in against), key=lambda found: found["peer"], default=None)
        for found in against:
            found["bar"] = 2 if found is best else 1
        raw = f"shuffled 16-frame windows, {who}, against np.memmap"
        lines += [*against, _compared(raw, peer_memmap, root, workers, 0.3, repeats)]
        if not workers:
            rates = [_rate(ours, root, 0, epoch) for epoch in range(repeats)]
            lines.append(line("shuffled 16-frame windows, one process, against what is wanted of a core", "windows/s",
                              rates, [WANTED_A_CORE], 1))  # fmt: skip
    return lines


def _compared(what: str, peer: ModuleType, root: Path, workers: int, bar: float | None, repeats: int) -> Line:
    folder = baked.bake(peer, root, baked.windows(root))
    epochs = {ours: iter(range(1 << 30)), peer: iter(range(1 << 30))}  # a new order each time

    def rate(side: ModuleType, place: Path) -> float:
        return _rate(side, place, workers, next(epochs[side]))

    return compare(what, "windows/s", lambda: rate(ours, root), lambda: rate(peer, folder), bar, repeats)


def _rate(side: ModuleType, place: Path, workers: int, epoch: int) -> float:
    return million_ids_per_second(side.shuffled(place, workers, epoch)) * 1e6 / WINDOW_IDS
