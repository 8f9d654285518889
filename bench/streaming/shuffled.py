"""Shuffled windows of 16 frames per second (ids [256, 4098] a batch), warm, in one process and by 4 workers.

A repetition is EPOCHS epochs, as a training run reads them: workers are started once, and its first batch is not
counted. By 4 workers each side has its own way: ours `Stream.batches`, litData and WebDataset their loaders, the others
torch's DataLoader. One line has ours in a DataLoader too, against the best of them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import baked
import ours
import peer_memmap
from rates import Pair, compare_both, million_ids_per_second
from sides import Line, line

WINDOW_IDS = 4_098
WANTED_A_CORE = 20_000
EPOCHS = 8  # 232 batches of 131,072 frames
Read = Callable[[Path, int, range], Any]  # (folder, workers, epochs) -> batches


def measure(root: Path, repeats: int) -> list[Line]:
    """Against each peer and against raw mapped ids; the line for the best of the libraries is wanted at 2×."""
    lines = []
    for workers in (0, 4):
        who = f"{workers} workers" if workers else "one process"
        compared = partial(_compared, root=root, workers=workers, repeats=repeats)
        against = {
            peer: compared(f"shuffled 16-frame windows, {who}, against {peer.NAME}", peer, bar=1)
            for peer in baked.peers(f"shuffled windows, {who}")
        }
        best = max(against, key=lambda peer: against[peer][0]["peer"], default=None)
        for found in against[best] if best else ():
            found["bar"] = 2
        lines += [found for pair in against.values() for found in pair]
        if best and workers:
            what = f"shuffled 16-frame windows, {who} of torch's DataLoader, against {best.NAME}"
            lines += compared(what, best, bar=None, mine=ours.by_data_loader)
        lines += compared(f"shuffled 16-frame windows, {who}, against np.memmap", peer_memmap, bar=0.3)
        if not workers:
            lines += _a_core(root, repeats)
    return lines


def _a_core(root: Path, repeats: int) -> list[Line]:
    rates = zip(*(_rate(ours.shuffled, root, 0, turn) for turn in range(repeats)), strict=True)
    what = "shuffled 16-frame windows, one process, against what is wanted of a core"
    return [
        line(what + how, "windows/s", found, [WANTED_A_CORE], 1)
        for how, found in zip(("", ", by CPU time"), rates, strict=True)
    ]


def _compared(
    what: str,
    peer: ModuleType,
    root: Path,
    workers: int,
    repeats: int,
    bar: float | None,
    mine: Read = ours.shuffled,
) -> list[Line]:
    """By the clock and by CPU time."""
    folder = baked.bake(peer, root, baked.windows(root))
    turns = {mine: iter(range(1 << 30)), peer.shuffled: iter(range(1 << 30))}  # a new order each time

    def rate(read: Read, place: Path) -> Pair:
        return _rate(read, place, workers, next(turns[read]))

    return compare_both(what, "windows/s", lambda: rate(mine, root), lambda: rate(peer.shuffled, folder), bar, repeats)


def _rate(read: Read, place: Path, workers: int, turn: int) -> Pair:
    clock, cpu = million_ids_per_second(read(place, workers, range(turn * EPOCHS, (turn + 1) * EPOCHS)))
    return clock * 1e6 / WINDOW_IDS, cpu * 1e6 / WINDOW_IDS
