"""Bytes per second of `verify --deep` and of packing, against sha256 of the same files and a copy in memory."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from sides import Line, compare

from toto.shards.cli import cli
from toto.shards.store import open_store
from toto.shards.verify import verify


def measure(root: Path, repeats: int) -> list[Line]:
    """Shares of what the processor can do; nothing is wanted of them."""
    size = sum(path.stat().st_size for path in (root / "shards").iterdir())
    memory = np.ones(size, np.uint8)

    def rate_of(work: Callable[[], object]) -> Callable[[], float]:
        def rate() -> float:
            started = time.perf_counter()
            work()
            return size / (time.perf_counter() - started) / 1e6

        return rate

    works = {"verify --deep": lambda: _verify(root), "pack": lambda: _pack(root)}
    peers = {"sha256 of the shards": lambda: _sha256(root), "a copy in memory": memory.copy}
    return [
        compare(f"{name} against {other}", "MB/s", rate_of(work), rate_of(peer), None, repeats)
        for name, work in works.items()
        for other, peer in peers.items()
    ]


def _verify(root: Path) -> None:
    assert verify(open_store(root), True, lambda *_: None).ok


def _pack(root: Path) -> None:
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        done = CliRunner().invoke(cli, ["pack", str(root), "--out", f"{folder}/packed"])
        assert done.exit_code == 0, done.output


def _sha256(root: Path) -> None:
    for path in (root / "shards").iterdir():
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")
