"""Bytes per second of `verify --deep` and of packing, against sha256 of the same files and a copy in memory."""

import hashlib
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from sides import Line, compare

from toto.shards.store import open_store
from toto.shards.verify import verify


def measure(root: Path, repeats: int) -> list[Line]:
    """Shares of what the processor can do; nothing is wanted of them."""
    size = sum(path.stat().st_size for path in (root / "shards").iterdir())

    def rate(work) -> float:
        started = time.perf_counter()
        work()
        return size / (time.perf_counter() - started) / 1e6

    def deep() -> None:
        assert verify(open_store(root), True, lambda *_: None).ok

    memory = np.ones(size, np.uint8)
    lines = [compare("verify --deep against sha256 of the shards", "MB/s", lambda: rate(deep),
                     lambda: rate(lambda: _sha256(root)), None, repeats)]  # fmt: skip
    lines.append(compare("verify --deep against a copy in memory", "MB/s", lambda: rate(deep),
                         lambda: rate(lambda: memory.copy()), None, repeats))  # fmt: skip
    return lines + _packing(root, rate, repeats)


def _sha256(root: Path) -> None:
    for path in (root / "shards").iterdir():
        with open(path, "rb") as file:
            hashlib.file_digest(file, "sha256")


def _packing(root: Path, rate, repeats: int) -> list[Line]:
    from click.testing import CliRunner

    from toto.shards.cli import cli

    def pack() -> None:
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            done = CliRunner().invoke(cli, ["pack", str(root), "--out", f"{folder}/packed"])
            assert done.exit_code == 0, done.output

    def copy() -> None:
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            shutil.copytree(root / "shards", f"{folder}/shards")

    if "pack" not in cli.commands:
        return []
    return [compare("pack against a copy of the files", "MB/s", lambda: rate(pack), lambda: rate(copy), None, repeats)]
