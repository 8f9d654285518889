"""The process that touches strangers' files: requests on stdin, messages on stdout (see wire.py).

    python -m toto.tokenize.decode_child MEMORY_MB TIMEOUT_S SLOTS

SLOTS is the place of memory for blocks, or "" (see slots.py); a line with a number says that this slot is free again.
A request is one line of JSON. {"probe": [uri, kind]} is answered by one "probe". {"decode": DecodeRequest} is answered
by "block"…, then "info", "error" or "oom"; between them "beat", at most one a second and only when further frames
were decoded, or before another try of a store that did not answer: silence means no progress.
The process ends when its parent does: at the end of stdin, or, if some library then holds Python's lock, by
the alarm that every sign of progress puts off.
"""

import gc
import json
import os
import queue
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import BinaryIO

from toto.tokenize.clip import DecodeRequest, SourceError, one_line
from toto.tokenize.decode import decode
from toto.tokenize.probe import probe
from toto.tokenize.slots import Slots
from toto.tokenize.transient import TransientError, pauses_for, resumed
from toto.tokenize.wire import send, send_part

BEAT_S = 1.0


def main(memory_mb: int, timeout_s: float, place: str) -> None:
    """Answers requests until stdin ends."""
    answers, slots = _take_stdout(), Slots(place)
    _set_limits(memory_mb)
    warnings.simplefilter("ignore")  # Pillow's remarks about strangers' files
    gc.freeze()  # no collection looks through all that was imported
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(sys.stdin.buffer, requests.put, slots.free), daemon=True).start()
    send(answers, {"type": "ready"})
    while True:
        asked = json.loads(requests.get())
        with Pulse(answers, 2 * timeout_s) as pulse:
            if "probe" in asked:
                found = probe(*asked["probe"])
                pulse.pause()
                send(answers, {"type": "probe", "probe": found and asdict(found)})
            else:
                _answer(answers, slots, DecodeRequest(**asked["decode"]), pulse)


class Pulse:
    """Tells the parent that frames still come, and lets an alarm end this process when they stop for long."""

    def __init__(self, answers: int, limit_s: float) -> None:
        self._answers = answers
        self._limit_s = limit_s
        self._told = time.monotonic()

    def __enter__(self) -> "Pulse":
        self.resume()
        return self

    def __exit__(self, *error: object) -> None:
        self.pause()

    def beat(self) -> None:
        """To be called for every decoded frame."""
        now = time.monotonic()
        if now - self._told >= BEAT_S:
            self._told = now
            self.pause()
            send(self._answers, {"type": "beat"})
            self.resume()

    def rest(self, seconds: float) -> None:
        """Waits, and goes on telling the parent: this is not the silence of a decoder that hangs."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, BEAT_S))
            self.beat()

    def pause(self) -> None:
        """Before waiting for the parent to take a message, however long that lasts."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def resume(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._limit_s)


def _answer(answers: int, slots: Slots, request: DecodeRequest, pulse: Pulse) -> None:
    try:
        for part in resumed(lambda: decode(request, pulse.beat), pauses_for(request.uri), pulse.rest):
            pulse.pause()
            send_part(answers, part, slots)
            pulse.resume()
    except SourceError as error:
        send(answers, {"type": "error", "reason": error.reason, "detail": error.detail})
    except TransientError as error:
        send(answers, {"type": "error", "reason": "open_error", "detail": f"after several tries: {error}"})
    except MemoryError as error:
        send(answers, {"type": "oom", "detail": one_line(error)})
        os._exit(0)  # what is left of this process is not to be trusted with the next source


def _take_stdout() -> int:
    """A descriptor for messages; what libraries print to stdout goes to stderr from here on."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers


def _set_limits(memory_mb: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # elsewhere the kernel does not enforce it
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))


def _read_requests(stdin: BinaryIO, put: Callable[[bytes], None], free: Callable[[int], None]) -> None:
    for line in stdin:
        if line.strip().isdigit():
            free(int(line))
        else:
            put(line)
    os._exit(0)  # the parent is gone


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
