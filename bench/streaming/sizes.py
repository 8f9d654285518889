"""Bytes on disk for a token: ours, each peer's files at their smallest, 13-bit packing, and two entropies."""

import tempfile
from pathlib import Path

import baked
import click
import numpy as np
from sides import Line

from toto import Dataset

PACKED = 13 / 8  # 8,196 ids need 14 bits; 8,192 codes 13


def measure(root: Path, repeats: int) -> list[Line]:
    """Ours against each peer at its smallest (above 1: ours is smaller), 13-bit packing and two entropies."""
    dataset = Dataset(root)
    mine = dataset.info["totals"]["bytes"] / dataset.info["totals"]["tokens"]
    ids = dataset.windows(baked.FRAMES) * (baked.FRAMES * 256 + 2)
    lines = []
    for peer in baked.peers("bytes a token"):
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            peer.write_small(Path(folder), baked.windows(root))
            theirs = baked.bytes_in(Path(folder)) / ids
        lines.append(_line(f"bytes a token, against {peer.NAME} compressed", mine, theirs, 1))
    lines.append(_line("bytes a token, against 13-bit packing", mine, PACKED, None))
    for name, bits in _entropies(root).items():
        lines.append(_line(f"bytes a token, against {name}", mine, bits / 8, None))
    return lines


def _line(what: str, mine: float, theirs: float, bar: float | None) -> Line:
    click.echo(f"{what}: {mine:.4f} against {theirs:.4f}, {theirs / mine:.2f}×\n")
    return {"what": what, "ours": mine, "peer": theirs, "unit": "bytes/token", "ratio": theirs / mine, "bar": bar}


def _entropies(root: Path) -> dict[str, float]:
    """Bits a code: each for itself; and whether it is that of the frame before, with which new one where it is not."""
    alone, changed, same, pairs = np.zeros(1 << 16, np.int64), np.zeros(1 << 16, np.int64), 0, 0
    for row in Dataset(root).rows():
        alone += np.bincount(row.codes.reshape(-1), minlength=1 << 16)
        moved = row.codes[1:] != row.codes[:-1]
        changed += np.bincount(row.codes[1:][moved], minlength=1 << 16)
        same, pairs = same + int((~moved).sum()), pairs + moved.size
    repeat = same / pairs
    bits = -repeat * np.log2(repeat) - (1 - repeat) * np.log2(1 - repeat) + (1 - repeat) * _entropy(changed)
    click.echo(f"  {repeat:.1%} of the codes repeat the one at their place in the frame before")
    return {"the entropy of single ids": _entropy(alone), "the entropy of 'repeated' and of single new ids": bits}


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
