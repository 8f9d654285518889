"""Ctrl-C and SIGTERM during training: the step at hand is finished and saved first.

The first signal is remembered; whoever trains looks at `asked` between two steps. A second Ctrl-C stops at once. A
signal that is ignored, as Ctrl-C of a job behind `&`, stays so.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn

from toto.command import Terminated


class Stopping:
    """`with Stopping() as stopping:` … `stopping.asked` is 0, SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stopping":
        if threading.current_thread() is not threading.main_thread():  # no other hears signals
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number


def stop(number: int) -> NoReturn:
    """Ends the command as the signal would have, with its exit code."""
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated
