"""Names of files in a dataset: relative, never out of it; some hold the beginning of their file's sha256."""

import re
from pathlib import PurePosixPath

from toto.errors import UserError

SCRATCH = "tmp"  # beside shards/: unfinished files, safe to remove when no run is going on
MOST_BYTES = 255  # of a name between two slashes, as file systems have it
_HASHED = re.compile(r"-([0-9a-f]{8})\.\w+$")


def inside(name: str) -> str:
    """The name, when it stays inside the dataset; a damaged or hostile file may name others: UserError."""
    parts = PurePosixPath(name).parts
    long = max((len(part.encode("utf-8", "replace")) for part in parts), default=0) > MOST_BYTES
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or long:
        shown = repr(name) if len(name) <= MOST_BYTES else f"{name[:40]!r}…"
        raise UserError(f"{shown} is no name of a file in a dataset; a file of this dataset was changed")
    return name


def hash_in(name: str) -> str | None:
    """The first 8 hex digits of the file's sha256 that a name such as shards/<unit>-<hash>.arrow holds, or None."""
    found = _HASHED.search(name)
    return found.group(1) if found else None
