"""What other encodings of the codes would take, in bytes a token: measured on whole batches, none is a format here.

packed     13 bits a code
planes     low bytes, then high bytes, each through zstd
difference code minus the code before it in time (first frame: as it is), through zstd
bitmap     a bit for each code of a frame but the first: does it repeat the frame before; 13 bits for each other one;
           the bits through zstd, the literals as they are
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import zstandard
from levels import Found

from toto import Dataset

BITS = 13
LEVEL = 1
BATCH_CODES = 262_144


def measure(root: Path, usual: Found) -> list[dict[str, Any]]:
    """Each encoding against the shards' own; a ratio above 1: the encoding is smaller."""
    encodings: dict[str, Callable[[list[np.ndarray]], int]] = {
        "13-bit packing": _packed,
        "byte planes, zstd 1": _planes,
        "difference to the frame before, zstd 1": _difference,
        "difference to the frame before, byte planes, zstd 1": _difference_planes,
        "repeat bitmap through zstd 1, 13-bit literals": _bitmap,
    }
    totals, codes = dict.fromkeys(encodings, 0), 0
    for runs in _batches(root):
        codes += sum(run.size for run in runs)
        for name, size in encodings.items():
            totals[name] += size(runs)
    lines = []
    for name, total in totals.items():
        click.echo(f"{name}: {total / codes:.4f} bytes/token, {total / codes / usual.bytes_a_token:.2f} of ours")
        sides = {"ours": usual.bytes_a_token, "peer": total / codes}
        ratio = usual.bytes_a_token * codes / total
        lines.append({"what": f"ours against {name}", **sides, "unit": "bytes/token", "ratio": 1 / ratio, "bar": None})
    return lines


def _batches(root: Path):
    """Codes uint16 [n, 16, 16] of the runs of each record batch."""
    for _, _, batch in Dataset(root).batches():
        ids = np.split(batch.tokens, batch.starts[1:-1])
        yield [run[1:-1].reshape(n, 256) - np.uint16(4) for run, n in zip(ids, batch.n_frames, strict=True)]


def _zstd(data: np.ndarray) -> int:
    return len(zstandard.ZstdCompressor(LEVEL).compress(np.ascontiguousarray(data).tobytes()))


def _packed(runs: list[np.ndarray]) -> int:
    return -(-sum(run.size for run in runs) * BITS // 8)


def _planes(runs: list[np.ndarray]) -> int:
    codes = np.concatenate(runs).reshape(-1)
    return _zstd((codes & 255).astype(np.uint8)) + _zstd((codes >> 8).astype(np.uint8))


def _moved(runs: list[np.ndarray]) -> list[np.ndarray]:
    return [np.concatenate([run[:1], run[1:] ^ run[:-1]]) for run in runs]


def _difference(runs: list[np.ndarray]) -> int:
    return _zstd(np.concatenate(_moved(runs)))


def _difference_planes(runs: list[np.ndarray]) -> int:
    return _planes(_moved(runs))


def _bitmap(runs: list[np.ndarray]) -> int:
    repeats = np.concatenate([(run[1:] == run[:-1]).reshape(-1) for run in runs])
    literals = sum(run[0].size for run in runs) + int((~repeats).sum())
    return _zstd(np.packbits(repeats)) + -(-literals * BITS // 8)
