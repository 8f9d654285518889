"""How far a rewrite is: on a terminal one line that is written over, elsewhere nothing but the last line."""

import sys
import threading
import time
from types import TracebackType


class Progress:
    """Counts units and bytes from any thread; a thread of its own shows them. Use as a context manager."""

    def __init__(self, what: str, units: int, units_before: int, total_bytes: int) -> None:
        self.units_done = 0
        self.bytes_done = 0
        self._what, self._units, self._before, self._total = what, units, units_before, total_bytes
        self._lock, self._over = threading.Lock(), threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._show, daemon=True)

    def bytes(self, count: int) -> None:
        """So many bytes more are through."""
        with self._lock:
            self.bytes_done += count

    def unit(self) -> None:
        """One unit more is done."""
        with self._lock:
            self.units_done += 1

    def line(self) -> str:
        """One line for a person."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate, left = self.bytes_done / seconds, max(self._total - self.bytes_done, 0)
        eta = f" · {_clock(left / rate)} left" if rate and left else ""
        units = f" {self._before + self.units_done}/{self._units} units ·" if self._units else ""
        return f"{self._what}{units} {self.bytes_done / 1e6:,.0f} MB · {rate / 1e6:,.0f} MB/s{eta}"

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{self.line()}\n")

    def _show(self) -> None:
        while sys.stderr.isatty() and not self._over.wait(0.5):
            sys.stderr.write(f"\r\x1b[K{self.line()}")
            sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
