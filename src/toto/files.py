"""Files that appear whole or not at all: whoever looks sees the one before, or the new one, never half of it."""

import os
from pathlib import Path
from uuid import uuid4

from toto.errors import naming


def cache_folder() -> Path:
    """This user's folder for what can be fetched or worked out anew; nothing is made."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "toto"


def sync(path: Path) -> None:
    """Returns when a file, or what a folder lists, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file under a name of its own, then renames it; makes the folders above. An OSError names the file."""
    partial = path.with_name(f".{path.name}.{uuid4().hex[:8]}.partial")
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            error.filename = str(path)  # not the name that nobody has asked for
            raise
        finally:
            partial.unlink(missing_ok=True)
