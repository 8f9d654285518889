"""Local copies of whole files of a remote dataset, in the cache: checked, shared by processes, bounded with the rest.

A copy is fetched under a name of its own, checked, then renamed. The name of a shard holds its hash, so a copy never
goes stale; one that was damaged on this disk since is noticed when a process first uses it, and fetched anew.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from toto.errors import UserError
from toto.shards.cache.space import FULL, Space, asked_limit, cache_home, touch
from toto.shards.hashing import file_sha256
from toto.shards.store.names import hash_in

VERIFY = "run `toto-shards verify --deep` on it"
TRIES = 3  # of a file that arrives with other bytes than its name says


def copy_path(folder: str, name: str) -> Path:
    """Where the copy of a file lies, or would lie."""
    return cache_home() / "files" / folder / Path(name).name


def fetched(target: Path, place: str, fetch: Callable[[Path], None], advice: str = VERIFY) -> Path:
    """Brings a file to `target` by `fetch(path)`, which raises when it cannot; UserError when what arrives is damaged,
    or the cache cannot be written.

    `place` is the file's name in the store and `advice` what to do when it is damaged, for errors. The file stays
    although the cache's limit is less.
    """
    space = Space(cache_home(), asked_limit())
    part = space.scratch()
    try:
        for folder in (target.parent, part.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(TRIES):
            _fetched(fetch, part, space)
            if is_whole(part, target.name):
                if not space.take(part.stat().st_size):  # it is needed all the same, until others come
                    space.tidy()
                    space.count(part.stat().st_size)
                target.parent.mkdir(exist_ok=True)
                os.replace(part, target)
                return target
    except PermissionError as error:
        raise UserError(f"{error.filename}: cannot be written; TOTO_CACHE names a folder for copies of files") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    raise UserError(f"{place}: arrives with other bytes than were written; {advice}")


def _fetched(fetch: Callable[[Path], None], part: Path, space: Space) -> None:
    try:
        fetch(part)
    except OSError as error:
        if error.errno not in FULL:
            raise
        space.halve()
        fetch(part)


def is_whole(path: Path, name: str) -> bool:
    """Whether a copy is there with the bytes that the hash in its name says; without one it is believed."""
    expected = hash_in(name)
    whole = path.is_file() and (expected is None or file_sha256(path).startswith(expected))
    if whole:
        touch(path)
    return whole
