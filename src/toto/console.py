"""What the console scripts call: a command line is imported here, and a signal meanwhile ends it at once.

    toto-shards = "toto.console:shards"   ->   toto.shards.cli.main()

Importing torch, ray or pyarrow takes a second or more. Nothing is begun then, so nothing is to be saved: Ctrl-C gives
one line and exit code 130, SIGTERM 143, where Python would print a traceback out of the middle of a library. From
`command.run` on a signal is an exception. Only modules that Python itself has loaded are imported here.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType

CODES: dict[int, tuple[int, str]] = {signal.SIGINT: (130, "Ctrl-C"), signal.SIGTERM: (143, "SIGTERM")}


def tokenize() -> None:
    """The console script `toto-tokenize`."""
    _main("toto.tokenize.cli")


def shards() -> None:
    """The console script `toto-shards`."""
    _main("toto.shards.cli")


def train() -> None:
    """The console script `toto-train`."""
    _main("toto.train.cli")


def evaluate() -> None:
    """The console script `toto-eval`."""
    _main("toto.evaluate.cli")


def demo() -> None:
    """`python -m toto.demo`."""
    _main("toto.demo.road")


def on_stop(handler: Callable[[int, FrameType | None], None]) -> None:
    """Ctrl-C and SIGTERM call the handler from now on; a Ctrl-C that is ignored, as of a job behind `&`, stays so."""
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handler)


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process where it is: an exception might be taken for one of its own by a library that is imported."""
    code, name = CODES[number]
    os.write(2, f"error: stopped by {name}\n".encode())
    os._exit(code)


class Pandas:
    """Finds no pandas where a module of toto is the one that asks: then it is pyarrow in its name."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """None: others may find it. ImportError for what pyarrow asks."""
        if name == "pandas" and _asking().startswith("toto."):
            raise ModuleNotFoundError("toto has no use for pandas", name=name)


def _main(module: str) -> None:
    on_stop(leave)
    _without_pandas()
    import_module(module).main()


def _without_pandas() -> None:
    # pyarrow (26) imports pandas, where it is installed, to ask of almost any value whether it is a Series: 0.5 s of a
    # command. toto gives it none. When a library really needs pandas, pyarrow tries again.
    sys.meta_path.insert(0, Pandas())


def _asking() -> str:
    """The name of the module that imports, or has pyarrow import."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not name.startswith(("importlib", "pyarrow")):
            return name
        frame = frame.f_back
    return ""
