"""The small files of a snapshot: each is named with its hash, and held against it before anybody reads it."""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from toto.errors import UserError
from toto.shards.manifest import results_table
from toto.shards.parquet import read_table
from toto.shards.reader import DamagedShard, MissingShard
from toto.shards.store import LocalStore, Store

T = TypeVar("T")
RESULTS_AT_ONCE = 256  # small files asked for together
PAUSES_S = (1.0, 5.0)  # between tries of a file that a store says is not there


class SealedFiles:
    """Reads what dataset.json and the manifest name; DamagedShard, naming it, where a file is not as sealed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, path: str, sha256: str) -> bytes:
        """The bytes of a file."""
        return self._sealed(path, sha256, look_again(self._store, partial(self._store.read, path), self._name(path)))

    def table(self, ref: dict[str, Any]) -> pa.Table:
        """A Parquet file by its entry in dataset.json."""
        return read_table(self.read(ref["path"], ref["sha256"]), self._name(ref["path"]))

    def results(self, units: pa.Table) -> Iterator[pa.Table]:
        """The per-source results of rows of the manifest; the files are asked for many at a time."""
        for start in range(0, len(units), RESULTS_AT_ONCE):
            part = units.slice(start, RESULTS_AT_ONCE)
            paths, hashes = part["sources_path"].to_pylist(), part["sources_sha256"].to_pylist()
            try:
                files = self._store.read_all(paths)
            except FileNotFoundError:  # told by name
                files = tuple(map(self.read, paths, hashes))
            for path, sha256, data in zip(paths, hashes, files, strict=True):
                yield results_table(self._sealed(path, sha256, data), self._name(path))

    def _name(self, path: str) -> str:
        return f"{self._store.uri}/{path}"

    def _sealed(self, path: str, sha256: str, data: bytes) -> bytes:
        if hashlib.sha256(data).hexdigest() != sha256:
            raise DamagedShard(self._name(path), "the file is not as it was sealed")
        return data


def look_again(store: Store, get: Callable[[], T], name: str) -> T:
    """What `get` gives, tried again where the store says that nothing is there, or fails in a way of its own."""
    for pause_s in (*PAUSES_S, None):
        try:
            return get()
        except FileNotFoundError:
            if pause_s is None or isinstance(store, LocalStore):
                raise MissingShard(name, "the file is missing, or not a regular file") from None
        except (UserError, PermissionError):
            raise
        except Exception as error:  # an object store's own: time-outs, resets, refusals
            if pause_s is None:
                reason = " ".join(str(error).split())[:200]
                raise UserError(f"cannot read {name} ({type(error).__name__}: {reason})") from None
        time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")
