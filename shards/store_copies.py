"""Local copies of a remote dataset's files, in the user's cache: whole, checked, shared by processes.

A copy is fetched under a name of its own, checked, then renamed. The name of a shard holds its hash, so a copy never
goes stale; one that was damaged on this disk since is noticed when a process first uses it, and fetched anew.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from toto.errors import UserError
from toto.shards.hashing import file_sha256
from toto.shards.store_names import hash_in

TRIES = 3  # of a file that arrives with other bytes than its name says


def cache_folder() -> Path:
    """Where this user's copies and unfinished files of remote datasets lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "toto"


def fetched(target: Path, place: str, fetch: Callable[[Path], None]) -> Path:
    """Brings a file to `target` by `fetch(path)`, which raises when it cannot; UserError when what arrives is damaged.

    `place` is the file's name in the store, for errors.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        for _ in range(TRIES):
            fetch(part)
            if is_whole(part, target.name):
                os.replace(part, target)
                return target
    finally:
        part.unlink(missing_ok=True)
    raise UserError(f"{place}: arrives with other bytes than were written; run `toto-shards verify --deep` on it")


def is_whole(path: Path, name: str) -> bool:
    """Whether a copy is there with the bytes that the hash in its name says; without one it is believed."""
    expected = hash_in(name)
    return path.is_file() and (expected is None or file_sha256(path).startswith(expected))
