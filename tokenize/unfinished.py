"""Files that workers have not finished: named by machine and process, so that those of dead processes are known.

    tmp/<machine>-<pid>-<12 hex>     of a bucket's target in ~/.cache/toto/tmp

A worker that is killed leaves the two of its unit. They are removed at the end of a run whose workers a signal ended,
by the next worker that starts on that machine, and a day later by a run on any machine, as are the small files of
stores (<pid>-<12 hex>).
"""

import hashlib
import os
import re
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from functools import cache
from pathlib import Path

from toto.alive import is_alive
from toto.shards.leftovers import GARBAGE_AGE_S
from toto.shards.store import SCRATCH, Store

DYING_S = 5.0  # how long a worker that was told to end may take
_OLD = re.compile(r"([0-9a-f]{12}-)?\d+-[0-9a-f]{12}|probe-[0-9a-f]{12}|progress-.+-\d+\.json")  # no lock


def unfinished(store: Store) -> Path:
    """A fresh name for a file of this process."""
    path = store.scratch()
    return path.with_name(f"{_machine()}-{path.name}")


def remove_unfinished(store: Store, ending: Collection[int] = ()) -> None:
    """Removes what dead processes of this machine have left; of those that are `ending` now (pids) in some seconds."""
    until = time.monotonic() + DYING_S
    while any(map(is_alive, ending)) and time.monotonic() < until:
        time.sleep(0.02)
    for path in store.scratch().parent.glob(f"{_machine()}-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not is_alive(int(pid)):
            path.unlink(missing_ok=True)


def remove_old(store: Store) -> None:
    """Removes unfinished files and progress of any machine's runs that nobody wrote to for a day."""
    for name in store.list(SCRATCH):
        with suppress(FileNotFoundError):  # another run does the same
            if _OLD.fullmatch(name.removeprefix(f"{SCRATCH}/")) and store.age_s(name) > GARBAGE_AGE_S:
                store.remove(name)


@cache
def _machine() -> str:
    """12 hex digits that two processes share only where each sees the other's pid: name, boot, name space of pids."""
    facts = [socket.gethostname()]
    with suppress(OSError):  # Linux alone has them
        facts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
