"""One run at a time, on a store that lets two writers create the same file.

    tmp/run.lock    whose run it is, and a beat that the run raises every 10 seconds

Who finds it there watches it: a beat that moves is a run that lives, and this one is refused; one that stands still
was left by a run that was killed, and is taken over. No clock is compared with another machine's.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from toto.errors import UserError
from toto.shards.store import SCRATCH, LocalStore, Store, is_exclusive, open_store

LOCK = f"{SCRATCH}/run.lock"
BEAT_S = 10.0
WATCH_S = 35.0  # a beat may be late by as much as a slow store makes it
LOOK_S = 2.0  # between two looks at a lock that is watched
FORGETFUL = (
    "this store lets two writers create the same file, so that only one run at a time is allowed; wait for it, or "
    "choose a store with conditional writes"
)
SETTLE_S = 3.0  # two who find no lock at the same moment both write theirs; after this the last one stands


@contextmanager
def open_target(uri: str) -> Iterator[Store]:
    """Opens a store to write a dataset to: tries whether commits are exclusive there; where they are not, only one run
    may go on, and a line on stderr says so. UserError where nothing can be written. A folder that was not there before,
    and holds no file when it ends with an error, goes again."""
    store = open_store(uri)
    with _gone_if_empty(store):
        try:
            exclusive = is_exclusive(store)
        except (NotADirectoryError, FileExistsError):
            raise UserError(f"{uri} cannot be a folder (a file is in the way); choose another --out") from None
        if exclusive:
            yield store
            return
        sys.stderr.write(f"{store.uri} lets two writers create the same file: only one run at a time is allowed here\n")
        with only_run(store):
            yield store


@contextmanager
def _gone_if_empty(store: Store) -> Iterator[None]:
    is_new = isinstance(store, LocalStore) and not store.root.exists()
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # in use, or not ours
                _remove_folders(store.uri)
        raise


def _remove_folders(root: str) -> None:
    """Removes folders without files, up to the first file."""
    for folder, _, files in os.walk(root, topdown=False):
        if files:
            return
        os.rmdir(folder)


@contextmanager
def only_run(store: Store, why: str = FORGETFUL) -> Iterator["Beat"]:
    """Held by one run; UserError, which says `why`, when another one is alive or took it over meanwhile."""
    me = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _wait_until_free(store, why)
    store.write(LOCK, _said(me, 0))
    time.sleep(SETTLE_S)
    _refuse_others(store, me, why)
    beating = Beat(store, me, why)
    beating.start()
    try:
        yield beating
    except KeyboardInterrupt:
        beating.check()
        raise
    finally:
        beating.stop()
    beating.check()


class Beat(threading.Thread):
    """Raises the beat until it is stopped; interrupts the run when the lock is somebody else's."""

    def __init__(self, store: Store, me: str, why: str) -> None:
        super().__init__(daemon=True)
        self.lost = ""
        self._store, self._me, self._why, self._over = store, me, why, threading.Event()

    def check(self) -> None:
        """UserError when another run was seen to have taken the lock over."""
        if self.lost:
            raise UserError(_taken(self._store, self.lost, self._why)) from None

    def run(self) -> None:
        beat = 0
        while not self._over.wait(BEAT_S):
            beat += 1
            with suppress(UserError, OSError):  # a store that does not answer now will later
                version = self._store.version(LOCK)
                self.lost = _owner(self._store, self._me)
                if self.lost:
                    os.kill(os.getpid(), signal.SIGINT)
                    return
                self._store.replace(LOCK, _said(self._me, beat), version)  # not where it was taken since

    def stop(self) -> None:
        """Ends the beat and gives the lock back."""
        self._over.set()
        self.join()
        with suppress(UserError, OSError):
            if not self.lost:
                self._store.remove(LOCK)


def _wait_until_free(store: Store, why: str) -> None:
    first = _read(store)
    until = time.monotonic() + WATCH_S
    while first is not None and time.monotonic() < until:
        time.sleep(LOOK_S)
        now = _read(store)
        if now is not None and now != first:
            raise UserError(_taken(store, str(now.get("owner")), why))
        first = now


def _refuse_others(store: Store, me: str, why: str) -> None:
    other = _owner(store, me)
    if other:
        raise UserError(_taken(store, other, why))


def _owner(store: Store, me: str) -> str:
    """Who else holds the lock; "" when nobody else does."""
    now = _read(store)
    return "" if now is None or now.get("owner") == me else str(now.get("owner"))


def _taken(store: Store, owner: str, why: str) -> str:
    return f"{store.uri}: the run {owner} is going on, and {why}"


def _read(store: Store) -> dict[str, Any] | None:
    try:
        value = json.loads(store.read(LOCK))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _said(me: str, beat: int) -> bytes:
    return json.dumps({"owner": me, "beat": beat}).encode()
