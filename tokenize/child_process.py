"""Starting, hearing and ending a decoder's child; knows nothing of videos.

The child has its own process group and dies with its parent, also when that is killed with -9: it reads the
end of its stdin. Linux' PR_SET_PDEATHSIG is not used: it fires when the *thread* that started the child ends.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import subprocess
import sys
import time

from toto.errors import UserError
from toto.tokenize.slots import GivenSlots
from toto.tokenize.wire import Inbox, Message

START_S = 120.0  # importing FFmpeg from a cold network drive
PIPE_BYTES = 1 << 20
TAIL_BYTES = 2_000  # of stderr, for reports
HUGE_PAGES = "glibc.malloc.hugetlb=1"  # for frames, where the kernel gives them if asked: 2 to 3 % less CPU time


class Silence(Exception):
    """No message came in time."""


class Ended(Exception):
    """The child is gone; `returncode` as of subprocess: negative for a signal."""

    def __init__(self, returncode: int) -> None:
        super().__init__(returncode)
        self.returncode = returncode


class ChildProcess:
    """A running `python -m MODULE ARGUMENTS SLOTS`, ready for requests. Raises UserError when it does not start."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._slots = GivenSlots()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments, self._slots.place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            process_group=0,  # Ctrl-C reaches the parent alone; a kill reaches whatever the child started
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin
        self._inbox = Inbox()
        self._tail = b""
        self._selector = selectors.DefaultSelector()
        for stream in (self._process.stdout, self._process.stderr):
            self._selector.register(stream, selectors.EVENT_READ)
        _widen(self._process.stdout.fileno())
        self._await_start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Writes one line to its stdin. Raises OSError when it is gone."""
        self._stdin.write(line + b"\n")
        self._stdin.flush()

    def receive(self, timeout_s: float) -> tuple[Message, memoryview]:
        """The next message. Raises Silence, Ended, or ValueError when the child speaks nonsense.

        Only time spent waiting here counts.
        """
        deadline = time.monotonic() + timeout_s
        while (message := self._inbox.take()) is None:
            left_s = deadline - time.monotonic()
            ready = self._selector.select(left_s) if left_s > 0 else []  # chatter on stderr is no message
            if not ready:
                raise Silence
            for key, _ in ready:
                self._take(key)
        return self._whole(*message)

    def stderr_tail(self) -> str:
        """The last of what the child wrote to stderr, in one line."""
        return " ".join(self._tail.decode(errors="replace").split())

    def stop(self) -> int:
        """Kills it and what it started, at once; its return code (its own if it had ended before)."""
        if self.alive:  # else its number may be another's by now
            os.killpg(self._process.pid, signal.SIGKILL)
        returncode = self._process.wait()
        self._selector.close()
        self._slots.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(OSError):  # a request that was never read
                stream.close()  # type: ignore[union-attr]
        return returncode

    def _whole(self, message: Message, body: memoryview) -> tuple[Message, memoryview]:
        """A message with its body out of its slot, which the child may fill anew from here on."""
        slot = message.get("slot")
        if slot is None:
            return message, body
        body = self._slots.copy(slot, message.get("slot_bytes"))
        with contextlib.suppress(OSError):  # it is gone: what it does not say any more will tell
            self.send(b"%d" % slot)
        return message, body

    def _await_start(self) -> None:
        try:
            message, _ = self.receive(START_S)
        except (Silence, Ended, ValueError) as error:
            self.stop()
            raise UserError(
                f"the decoder's process did not start ({error!r}): {self.stderr_tail() or 'no word'}\n"
                "if that is about memory, give it more: --set datasets.NAME.decode_memory_mb=4096"
            ) from error
        assert message["type"] == "ready"

    def _take(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._process.stdout:
            if not self._inbox.read(key.fd):
                raise Ended(self._last_words())
            return
        data = os.read(key.fd, PIPE_BYTES)
        self._tail = (self._tail + data)[-TAIL_BYTES:]
        if not data:
            self._selector.unregister(key.fileobj)

    def _last_words(self) -> int:
        """Waits for its end, reading what is left of stderr; its return code."""
        assert self._process.stderr
        try:
            returncode = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # it closed its stdout, but lives
            os.killpg(self._process.pid, signal.SIGKILL)
            returncode = self._process.wait()
        os.set_blocking(self._process.stderr.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._process.stderr.fileno(), PIPE_BYTES):
                self._tail = (self._tail + data)[-TAIL_BYTES:]
        return returncode


def environment() -> dict[str, str]:
    """A child's: the parent's, with its import path, one thread for every library, and huge pages."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in (*given, *sys.path) if entry] + ([os.getcwd()] if "" in sys.path else [])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"GLIBC_TUNABLES": HUGE_PAGES, **os.environ, **threads, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def _widen(pipe: int) -> None:
    """A whole block fits into the pipe, where the system allows that."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
