"""One live line while a run goes on; plain lines, now and then, where there is no terminal."""

import sys
import time

PLAIN_SECONDS = 10.0  # between two lines without a terminal


class Progress:
    """Shows how far a run is; of many processes only the first shows anything."""

    def __init__(self, first: int, last: int, shown: bool = True) -> None:
        self._last = last
        self._shown = shown
        self._live = sys.stderr.isatty()
        self._started, self._first = time.monotonic(), first
        self._said = 0.0

    def show(self, step: int, loss: float, tokens_per_s: float, mfu: float, mfu_palm: float) -> None:
        """The line after `step` finished steps; MFU by causal attention, and as PaLM counts."""
        now = time.monotonic()
        if not self._shown or (not self._live and now - self._said < PLAIN_SECONDS and step != self._last):
            return
        self._said = now
        left = (now - self._started) / max(1, step - self._first) * (self._last - step)
        line = (
            f"step {step:,}/{self._last:,}  loss {loss:.3f}  {amount(tokens_per_s)} tokens/s  "
            f"MFU {mfu:.0%} causal, {mfu_palm:.0%} PaLM  ETA {duration(left)}"
        )
        sys.stderr.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}\n" if self._live else f"{text}\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Leaves the live line as it is."""
        if self._shown and self._live:
            sys.stderr.write("\n")


def duration(seconds: float) -> str:
    """`0:42`, `3:05:00`, `12 d 03 h`."""
    whole = round(seconds)
    if whole >= 86_400:
        return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def amount(number: float) -> str:
    """`950`, `12.9k`, `1.3M`, `2.56T`: three digits and a unit."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5 or unit == "E":
            return f"{number:.3g}{unit}" if unit else f"{number:.0f}"
        number /= 1000
    raise AssertionError("the last unit takes every number")
