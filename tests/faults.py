"""Decoding that goes wrong on purpose: what a `sitecustomize.py` on the import path does to files of certain names.

It replaces `av.open`, in every process that Python starts. No product code knows of it. `loop.mp4` strikes whenever it
is opened, `later_loop.mp4` from the second time on: when it is decoded, after its header was read for the plan.
`kill_worker.mp4` decodes, and kills who takes its frames; white frames kill the tokenizer actor that encodes them.
Runs that a test signals in their middle have a middle that lasts: their decoders wait.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import toto

CGROUPS = Path("/sys/fs/cgroup/memory")  # version 1; elsewhere RLIMIT_AS stands in

FAULTS = """
import ctypes, errno, os, signal, sys, time
import av

open_really = av.open
library = ctypes.CDLL(None)


def sleep_in_c():
    library.sleep(3600)

def sleep_in_c_holding_the_lock():
    ctypes.PyDLL(None).sleep(3600)

def loop():
    while True:
        pass

def chatter_for_ever():
    while True:
        os.write(2, b"x" * 1000)

def read_past_null():
    ctypes.string_at(0)

def abort():
    library.abort()

def exit_early():
    os._exit(3)

def be_killed():
    os.kill(os.getpid(), signal.SIGKILL)

def eat_memory():
    eaten = []
    while True:
        eaten.append(bytearray(b"x" * (8 << 20)))

def chatter():
    os.write(1, b"a library that prints to stdout\\n")
    print("and one that prints through Python")
    os.write(2, b"x" * 300_000)

def stumble():
    path = os.environ["TOTO_TEST_STUMBLES"]
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) == 1:
        raise TransientError("a store that does not answer")


def open_with_faults(file, *args, **kwargs):
    name = os.path.basename(str(file)).split(".")[0]
    if name.startswith("later_"):
        try:
            open(os.path.join(os.path.dirname(__file__), name), "x").close()
            return open_really(file, *args, **kwargs)
        except FileExistsError:
            name = name.removeprefix("later_")
    if name in faults:
        open(os.path.join(os.path.dirname(__file__), "begun"), "w").close()
        faults[name]()
    return open_really(file, *args, **kwargs)


faults = {name: value for name, value in globals().items() if callable(value) and name != "open_with_faults"}
av.open = open_with_faults
from toto.tokenize.rows import RowBuilder
from toto.tokenize.transient import TransientError


def add_with_faults(builder, block):
    if builder._source.startswith("kill_worker"):
        be_killed()
    add_really(builder, block)


add_really, RowBuilder.add = RowBuilder.add, add_with_faults
from toto.tokenize import gather


def encode_with_faults(tokenizer, frames):
    if (frames.min((1, 2, 3)) > 250).any():
        read_past_null()
    return encode_really(tokenizer, frames)


encode_really, gather.encode_padded = gather.encode_padded, encode_with_faults
"""
WAITING = """
import sys
if "toto.tokenize.decode_child" in sys.orig_argv:
    import time
    from toto.tokenize import decode as module

    def decode(request, beat):
        while next(left, None) is None:
            beat()
            time.sleep(0.01)
        return really(request, beat)

    left, really, module.decode = iter(range({sources})), module.decode, decode
"""


def import_path(folder: Path) -> str:
    """Puts the faults into a folder; the PYTHONPATH with which they strike whoever opens a file named as a fault."""
    return _customized(folder, FAULTS)


def waiting_path(folder: Path, sources: int) -> str:
    """The PYTHONPATH with which a decoder decodes so many sources and then waits for its end, as does the run."""
    return _customized(folder, WAITING.format(sources=sources))


def _customized(folder: Path, code: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(code)
    inherited = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return os.pathsep.join([str(folder), *inherited, str(Path(toto.__file__).parents[1])])


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[Path]:
    """A memory cgroup of this test's own; skips where none can be made."""
    group = CGROUPS / f"toto-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError as error:
        pytest.skip(f"no writable memory cgroup ({error}); the RLIMIT_AS and the SIGKILL test stand in for it")
    try:
        yield group
    finally:
        for _ in range(100):
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)
