"""What happened in a run, for later: log/<run>.jsonl beside the dataset, one JSON object a line, by the driver alone.

    run · unit · quarantined · death · seal · end          each with "time" (UTC) and "event"; see docs/tokenize.md

On disk each line is appended as it happens; a bucket gets the whole file at every seal and at the end. At LIMIT bytes
only what ends a run is added, with the number of lines that were left out. A log that cannot be written stops nothing.
"""

import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from toto.errors import UserError
from toto.shards.store import LocalStore, Store

FOLDER = "log"
LIMIT = 64 * 1024 * 1024
LAST = ("seal", "end")  # written past the limit, too


class EventLog:
    """The log of one run; nothing appears on disk before the first event."""

    def __init__(self, store: Store) -> None:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self.name = f"{FOLDER}/{now}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self._store = store
        self._lines: list[bytes] = []  # of a bucket's log
        self._bytes = self._left_out = 0

    def event(self, event: str, **facts: Any) -> None:
        """Adds a line; values must be plain JSON, and nothing secret."""
        if event in LAST and self._left_out:
            facts["left_out"] = self._left_out
        head = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event}
        line = json.dumps({**head, **facts}).encode() + b"\n"
        if self._bytes + len(line) > LIMIT and event not in LAST:
            self._left_out += 1
            return
        self._bytes += len(line)
        self._append(line)
        if event in LAST:
            self._save()

    def _append(self, line: bytes) -> None:
        if not isinstance(self._store, LocalStore):
            self._lines.append(line)
            return
        path = self._store.local_path(self.name)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", buffering=0) as file:
                file.write(line)

    def _save(self) -> None:
        if self._lines:
            with suppress(OSError, UserError):
                self._store.write(self.name, b"".join(self._lines))
