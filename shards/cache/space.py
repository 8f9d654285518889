"""How much of this disk the cache may take, among all processes that use it, without one that looks after it.

    TOTO_CACHE         the folder; ~/.cache/toto/shards by default
    TOTO_CACHE_BYTES   the limit, in bytes; 0: no cache. By default 64 GiB, or a fifth of the free space if that is less

    batches/<shard>/   inflated batches of a shard (batches.py)
    tables/<key>/      what was made of a manifest (batches.py)
    files/             copies of whole files (store/copies.py)
    tmp/               what is being written; left there by a killed process, removed by the next one that writes
    used               one byte for every 8 KiB of files: its length is the sum, told without looking at the files
    lock               held by who makes room

A file counts before it appears, so whoever is killed in between leaves the sum too large. Making room looks at every
file once, removes those not asked for for longest, and corrects the sum, but for what appears at that very moment.
"""

import errno
import fcntl
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from toto.alive import is_alive
from toto.errors import UsageError
from toto.files import cache_folder

MOST_BYTES = 64 << 30  # some 500,000 batches of 128 KiB, 32 G ids; the paper's Kinetics-600, every 4th frame: 10 G
FREE_SHARE = 0.2  # of what is free or the cache's own
UNIT = 8 << 10  # bytes that one byte of `used` stands for
ROOM = 0.9  # of the limit is kept when room is made: 6 GB of 64 are written before it is made again
MOST_DIGITS = 18  # of a limit
STALE_S = 3600.0  # no file takes an hour to write
TOUCH_S = 600.0  # a file's last use is noted once in ten minutes
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # what a disk without room says
_held: set[int] = set()  # open locks: a forked process must not hold them too


class Space:
    """One cache folder and its limit; None is the default limit."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.asked = limit
        self._cleaned = 0  # the process that last removed what killed ones left

    @property
    def limit(self) -> int:
        """Bytes that the files may take together, now."""
        if self.asked is not None:
            return self.asked
        place = next((p for p in (self.folder, *self.folder.parents) if p.is_dir()), Path("/"))
        return min(MOST_BYTES, int(FREE_SHARE * (shutil.disk_usage(place).free + self.used)))

    @property
    def is_off(self) -> bool:
        """Whether nothing is to be kept at all."""
        return self.asked is not None and self.asked <= 0

    @property
    def used(self) -> int:
        """Bytes that the files take, each rounded up to 8 KiB."""
        try:
            return os.stat(self.folder / "used").st_size * UNIT
        except FileNotFoundError:
            return 0

    def take(self, nbytes: int) -> bool:
        """Counts a file in that is about to appear; False where there is no room for it. OSError of the disk."""
        self._prepare()
        if self.used + _units(nbytes) * UNIT > self.limit and not self._make_room(nbytes):
            return False
        self.count(nbytes)
        return True

    def count(self, nbytes: int) -> None:
        """Adds a file to the sum."""
        handle = os.open(self.folder / "used", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, bytes(_units(nbytes)))
        finally:
            os.close(handle)

    def scratch(self) -> Path:
        """A fresh name for an unfinished file, beside the finished ones."""
        return self.folder / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"

    def tidy(self) -> None:
        """Comes down to the limit and corrects the sum, where nobody else does so now."""
        self._make_room(0)

    def halve(self) -> None:
        """Gives half of what the files take back to a disk that is full."""
        self._make_room(0, self.used // 2)

    def _prepare(self) -> None:
        """Once in each process: makes the folders, removes what killed processes left, sums up where no sum is."""
        if self._cleaned == os.getpid() and (self.folder / "tmp").is_dir():
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        if not (self.folder / "used").exists() and any(self._files()):
            self._make_room(0)
        self._remove_stale()
        self._cleaned = os.getpid()

    def _make_room(self, need: int, most: int | None = None) -> bool:
        """Removes the files not asked for for longest until `need` bytes fit, and the rest is at most `most`."""
        limit = self.limit
        if need > limit:
            return False
        with self._alone() as alone:
            if not alone:
                return False
            counted = self.used
            files = sorted(self._files())
            total = sum(size for _, size, _ in files)
            wanted = min(int(ROOM * limit), limit - need, total if most is None else most)
            for _, size, path in files:
                if total <= wanted:
                    break
                with suppress(OSError):
                    os.unlink(path)
                    total -= size
                    os.rmdir(os.path.dirname(path))  # where it is empty now
            self._remove_stale()
            written_meanwhile = max(0, self.used - counted)
            (self.folder / "used").touch(mode=0o600)
            os.truncate(self.folder / "used", _units(total + written_meanwhile))
        return True

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether nobody else makes room at this moment; nobody is waited for."""
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _held.add(handle)
        try:
            yield _locked(handle)
        finally:
            _held.discard(handle)
            os.close(handle)

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(last use, size in whole units, path) of every finished file."""
        for kind in ("batches", "tables", "files"):
            for folder in _entries(self.folder / kind):
                for entry in _entries(folder.path):
                    with suppress(FileNotFoundError):
                        state = entry.stat(follow_symlinks=False)
                        yield state.st_mtime, _units(state.st_size) * UNIT, entry.path

    def _remove_stale(self) -> None:
        for entry in _entries(self.folder / "tmp"):
            host, _, rest = entry.name.rpartition("-")[0].rpartition("-")
            with suppress(OSError):
                dead = host == socket.gethostname() and rest.isdigit() and not is_alive(int(rest))
                if dead or time.time() - entry.stat().st_mtime > STALE_S:
                    os.unlink(entry.path)


def cache_home() -> Path:
    """The folder of the cache; nothing is made."""
    chosen = os.environ.get("TOTO_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else cache_folder() / "shards"


def asked_limit() -> int | None:
    """TOTO_CACHE_BYTES, or None; UsageError where it is no number of bytes."""
    text = os.environ.get("TOTO_CACHE_BYTES")
    if not text:
        return None
    if not text.isdecimal() or len(text) > MOST_DIGITS:
        raise UsageError(
            f"TOTO_CACHE_BYTES is {text[:40]!r}: give a whole number of bytes, such as 20000000000; 0: no cache"
        )
    return int(text)


def touch(file: str | Path | int, state: os.stat_result | None = None) -> int:
    """Notes that a file, by path or handle, was asked for, at most once in ten minutes; the time that it then has, in
    nanoseconds, or 0. Nothing happens where that is not allowed. `state`: what is known of the file."""
    last = 0
    with suppress(OSError):
        last, now = (state or os.stat(file)).st_mtime_ns, time.time_ns()
        if now - last > TOUCH_S * 1e9:
            os.utime(file, ns=(now, now))
            return now
    return last


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _units(nbytes: int) -> int:
    return -(-nbytes // UNIT)


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)
