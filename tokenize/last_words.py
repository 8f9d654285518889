"""What a process that may die leaves to the one that takes its place: a small file whose name both know.

    process 1: LastWords(name) ─▶ say("AcceleratorError: …"), or a signal ─▶ Python's fault handler ─▶ the file
    process 2: LastWords(name).before ─▶ the words; where there are none, what the kernel's counter of kills tells

Ray starts an actor anew and tells only that the one before died. A file stays where its actor was not started again,
so those of two days ago are removed.
"""

import contextlib
import faulthandler
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

FOLDER = f"toto-last-words-{os.getuid()}"
KEPT_S = 2 * 24 * 3600
MOST = 4_000  # bytes of a file that are read
OUT_OF_MEMORY = "out of memory: the kernel killed it"
SILENT = "it was killed from outside (SIGKILL), or exited without a word"


@dataclass(frozen=True)
class End:
    """How a process ended."""

    time: float  # when it was last heard of, in seconds since 1970
    words: str  # one line


class LastWords:
    """Those of this process, under a name without slashes; `before` are its predecessor's, None for the first one.

    Where the temporary folder cannot be used there are none, and nothing is raised.
    """

    def __init__(self, name: str) -> None:
        self.before: End | None = None
        self._fd: int | None = None
        with contextlib.suppress(OSError):
            path = _folder() / name
            self.before = _end(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            self.say(str(_kills()))
            faulthandler.enable(self._fd)  # of SIGSEGV, SIGFPE, SIGABRT, SIGBUS and SIGILL

    def say(self, words: str) -> None:
        """To be called before this process ends itself."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.write(self._fd, " ".join(words.split()).encode() + b"\n")


def _folder() -> Path:
    """Ours alone; OSError where it is not."""
    folder = Path(tempfile.gettempdir(), FOLDER)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > KEPT_S:
                path.unlink()
    return folder


def _end(path: Path) -> End | None:
    try:
        with open(path, "rb") as file:
            kills, *words = file.read(MOST).decode(errors="replace").splitlines()
            ended = os.fstat(file.fileno()).st_mtime
    except (FileNotFoundError, ValueError):
        return None
    return End(ended, _told(words) or (OUT_OF_MEMORY if kills != str(_kills()) else SILENT))


def _told(words: list[str]) -> str:
    """One line: what was said; or the fault handler's signal, and the call in which it struck."""
    first = next((line for line in words if line), "")
    call = next((line.strip() for line in words if line.startswith("  File ")), "")
    return f"{first}, {call}" if call else first


def _kills() -> int:
    """How many processes this machine's kernel has killed because memory ran out, so far; 0 where it does not say."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/vmstat").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("oom_kill ")).split()[1])
    return 0
