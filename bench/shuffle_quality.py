"""How well the block shuffle of a training stream shuffles, and what it reads for it.

    python bench/shuffle_quality.py [--windows 262144] [--json]

Windows of 4,096 ids, 16 of which lie in one record batch, are put in order by blocks and groups of several sizes;
beside them an ideal shuffle, the shuffle buffers of streaming loaders, and the stored order. Each is of one epoch.

- distance: windows between two sequences that follow one another, as a share of all; the median of an ideal shuffle
  is 1 - 1/sqrt(2) = 0.293, its 5th percentile 0.025.
- adjacent: share of sequences that come from the same record batch as the one before them.
- batches: different record batches in a training batch of 256 sequences.
- inflations: record batches inflated for each sequence, by a reader that keeps 64 of them.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402
from collections import OrderedDict  # noqa: E402
from collections.abc import Iterator  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402

from toto.shards.streaming.order import GROUP_BLOCKS, Order, block_of  # noqa: E402

IDS = 4_096  # of a window
PER_BATCH = 16  # windows of a record batch of 128 KiB
STEP = 256  # sequences of a training batch
KEPT = 64  # record batches
BUFFERS = (1_000, 10_000)  # sequences
BAR = 0.9  # of the ideal's, for the sizes that training uses


@click.command()
@click.option("--windows", type=click.IntRange(4_096), default=1 << 18, show_default=True, help="Of one epoch.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(windows: int, as_json: bool) -> None:
    """Prints the measures of every order; the last line compares the one that training uses with the ideal."""
    own = (block_of(IDS), GROUP_BLOCKS)
    sizes = [(1, GROUP_BLOCKS), (own[0], 6), own, (own[0], 8 * GROUP_BLOCKS), (4 * own[0], GROUP_BLOCKS), (64, 48)]
    orders = {"ideal shuffle": np.random.default_rng(0).permutation(windows)}
    orders |= {f"blocks of {block}, groups of {group}": blocks(windows, block, group) for block, group in sizes}
    orders |= {f"buffer of {size:,}": np.fromiter(buffered(windows, size), np.int64, windows) for size in BUFFERS}
    orders["stored order"] = np.arange(windows)
    click.echo(f"{windows:,} windows; training uses blocks of {own[0]}, groups of {own[1]}\n")
    click.echo("| order | distance, median | 5th percentile | adjacent | batches in 256 | inflations |")
    click.echo("|---|---:|---:|---:|---:|---:|")
    found = {name: measure(order) for name, order in orders.items()}
    for name, of in found.items():
        click.echo(
            f"| {name} | {of['distance']:.3f} | {of['near']:.4f} | {of['adjacent']:.4f} | {of['batches']:.1f} "
            f"| {of['inflations']:.3f} |"
        )
    if as_json:
        ours, ideal = found[f"blocks of {own[0]}, groups of {own[1]}"], found["ideal shuffle"]
        units = {"distance": "share of all windows, median", "batches": "record batches in 256 sequences"}
        lines = [line(f"shuffle: {name}", ours[name], ideal[name], unit, None) for name, unit in units.items()]
        lines[0]["bar"] = BAR
        click.echo(json.dumps(lines))


def line(what: str, ours: float, peer: float, unit: str, bar: float | None) -> dict:
    """One line of the result."""
    return {"what": what, "ours": ours, "peer": peer, "unit": unit, "ratio": ours / peer, "bar": bar}


def blocks(windows: int, block: int, group_blocks: int) -> np.ndarray:
    """int64 [windows]: one epoch of our order."""
    return Order(windows, block, 0, "bench", group_blocks).many(np.arange(windows))[1]


def buffered(windows: int, size: int) -> Iterator[int]:
    """The stored order through a shuffle buffer: a random one goes out, the next one comes in."""
    rng = np.random.default_rng(0)
    held = list(range(size))
    for following in range(size, windows):
        i = int(rng.integers(size))
        yield held[i]
        held[i] = following
    yield from (held[i] for i in rng.permutation(size))


def measure(order: np.ndarray) -> dict[str, float]:
    """The measures of an order, int64 [windows]: number of the window, as stored, at each place."""
    steps = np.abs(np.diff(order)) / len(order)
    stored = order // PER_BATCH
    whole = stored[: len(stored) // STEP * STEP].reshape(-1, STEP)
    return {
        "distance": float(np.median(steps)),
        "near": float(np.quantile(steps, 0.05)),
        "adjacent": float((np.diff(stored) == 0).mean()),
        "batches": float(np.mean([len(np.unique(step)) for step in whole])),
        "inflations": inflations(stored) / len(order),
    }


def inflations(stored: np.ndarray) -> int:
    """Record batches that a reader inflates which keeps the last KEPT ones."""
    kept: OrderedDict[int, None] = OrderedDict()
    count = 0
    for batch in stored.tolist():
        count += batch not in kept
        kept[batch] = None
        kept.move_to_end(batch)
        if len(kept) > KEPT:
            kept.popitem(last=False)
    return count


if __name__ == "__main__":
    main()
