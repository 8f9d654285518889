"""The files of an export on their way: a target writes one into a folder, and says when it is finished.

What nobody called finished goes last: indexes, then README.md, then meta.json, which says that all is there.
"""

from collections.abc import Callable
from pathlib import Path

LAST = ("README.md", "meta.json")
META = LAST[-1]  # in every finished export, with the key "toto_export"


class Outgoing:
    """A folder to fill, and what becomes of a file that is finished: `send` may take it away."""

    def __init__(self, folder: Path, send: Callable[[Path, str], None] = lambda path, name: None) -> None:
        self.folder, self._send = folder, send
        self._sizes: dict[str, int] = {}

    def finished(self, path: Path) -> None:
        """Nothing more is written to this file of the folder."""
        name = path.relative_to(self.folder).as_posix()
        self._sizes[name] = path.stat().st_size
        self._send(path, name)

    def finish(self) -> None:
        """All that is left is finished, meta.json last."""
        left = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        names = {path.relative_to(self.folder).as_posix(): path for path in left}
        for name in sorted(names.keys() - self._sizes.keys(), key=lambda name: (name in LAST, name)):
            self.finished(names[name])

    @property
    def names(self) -> list[str]:
        """The files that are finished, in that order; the last one may still be on its way."""
        return list(self._sizes)

    @property
    def contents(self) -> dict[str, int]:
        """Name and bytes of each finished file."""
        return dict(self._sizes)

    @property
    def size(self) -> dict[str, int]:
        """How many files are finished, and their bytes."""
        return {"files": len(self._sizes), "bytes": sum(self._sizes.values())}
