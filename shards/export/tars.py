"""WebDataset: `<split>-000000.tar` of `<key>.ids.npy` (or `<key>.codes.npy`) and `<key>.json`, in that order.

Tars of the same pieces are the same bytes: no time, no owner. Keys are split and number, never a source's name.
"""

import io
import json
import tarfile
from typing import Any

import numpy as np

from toto.shards.export.layout import Layout
from toto.shards.export.outgoing import Outgoing

SHARD_BYTES = 256 << 20


class Tars:
    """Writes the pieces of one split; a tar is closed when it holds `shard_bytes` bytes."""

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None:
        self._out, self._split, self._layout = out, split, layout
        self._shard_bytes = shard_bytes or SHARD_BYTES
        self._tar: tarfile.TarFile | None = None
        self._tars = self._count = 0

    @classmethod
    def names(cls, split: str) -> str:
        """A regular expression of the files that a split has."""
        return rf"{split}-\d{{6,}}\.tar"

    def write(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Adds one piece."""
        tar = self._open()
        key = f"{self._split}-{self._count:09d}"
        self._count += 1
        _add(tar, f"{key}.{self._layout.name}.npy", npy_bytes(array))
        _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())
        if tar.offset >= self._shard_bytes:
            self._close()

    def close(self) -> None:
        """Ends the last tar; a split without pieces has an empty one."""
        if not self._tars:
            self._open()
        self._close()

    def _open(self) -> tarfile.TarFile:
        if self._tar is None:
            self._path = self._out.folder / f"{self._split}-{self._tars:06d}.tar"
            self._tar = tarfile.open(self._path, "w", format=tarfile.USTAR_FORMAT)
            self._tars += 1
        return self._tar

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._tar = None
            self._out.finished(self._path)


def npy_bytes(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=False)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
