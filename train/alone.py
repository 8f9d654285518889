"""One training run in a folder at a time: two would remove each other's unfinished checkpoints."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from toto.errors import UserError, naming

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder of a run; UserError when another process has it. A killed holder lets go by itself."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / LOCK, "w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process trains in {folder}; wait for it, or choose another --out") from None
        try:
            yield
        except BaseException:
            if [path.name for path in folder.iterdir()] == [LOCK]:  # refused before anything was written
                (folder / LOCK).unlink()
                folder.rmdir()
            raise
