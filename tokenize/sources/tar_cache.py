"""What was read from a tar, kept in the user's cache, so that a second run need not read it again.

~/.cache/toto/tars (XDG_CACHE_HOME) has a file for each tar as it was: its name is a hash of URI, size, time and etag,
its content a hash and a Parquet table. Files appear whole; one that is damaged is not used; all can be removed. Where
they take more than MOST_BYTES together, those that were not used for longest go.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import xxhash

from toto.files import cache_folder, write_whole
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.tokenize.input_file import local_path
from toto.tokenize.sources.files import File

VERSION = 2  # of what is kept
MOST_BYTES = 8 << 30  # two hundred million members: ImageNet-21k has 14 million
_DIGEST_BYTES = 16


def cached(tar: File, what: str, read: Callable[[], pa.Table]) -> pa.Table:
    """The table that `read` makes of this tar, metadata of the schema included, or made of it once before.

    `what`: tells several tables of one tar apart.
    """
    if not tar.mtime_us and not tar.etag:
        return read()  # nothing would tell that the tar was changed
    path = _path(tar, what)
    table = _load(path)
    if table is None:
        table = read()
        data = parquet_bytes(table)
        with suppress(OSError):  # on a full or read-only disk the next run reads it again
            write_whole(path, xxhash.xxh3_128_digest(data) + data)
    return table


def bound() -> None:
    """Removes what was not used for longest, where the folder holds more than MOST_BYTES."""
    found = sorted(_files())
    excess = sum(size for _, size, _ in found) - MOST_BYTES
    for _, size, path in found:
        if excess <= 0:
            return
        with suppress(OSError):  # another run may have removed it
            os.unlink(path)
            excess -= size


def _files() -> Iterator[tuple[float, int, str]]:
    """(when it was used, bytes, path) of each file; folders are somebody else's."""
    with suppress(OSError), os.scandir(_folder()) as entries:
        for entry in entries:
            with suppress(OSError):  # gone meanwhile
                if entry.is_file(follow_symlinks=False):
                    status = entry.stat()
                    yield status.st_mtime, status.st_size, entry.path


def _folder() -> Path:
    return cache_folder() / "tars"


def _path(tar: File, what: str) -> Path:
    local = local_path(tar.uri)
    place = tar.uri if local is None else os.path.abspath(local)
    facts = json.dumps([VERSION, what, place, tar.size, tar.mtime_us, tar.etag])
    return _folder() / hashlib.sha256(facts.encode()).hexdigest()[:32]


def _load(path: Path) -> pa.Table | None:
    """The table in a file of the cache; None when it is not there, or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    with suppress(OSError):
        os.utime(path)  # it was used; `bound` removes others first
    digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return read_parquet(data) if xxhash.xxh3_128_digest(data) == digest else None
