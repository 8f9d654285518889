"""Decoder processes that start warm: a server that has imported what they need forks them, as warm.py forks commands.

A command under test starts its decoder as `sys.executable -P -m toto.tokenize.decode_child …`. Its `sys.executable` is
a launcher here, which asks the server for that one process, and is Python itself for all other words:

launcher ── words, environment, folder, stdin, stdout, stderr ──▶  a fork of the server, in the launcher's process group
         ◀── how it ended, and the launcher ends the same way ──
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Never

MODULE = "toto.tokenize.decode_child"
LAUNCHER = """#!{python} -IS
import os, sys
if sys.argv[1:4] != ["-P", "-m", "{module}"]:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
import json, resource, socket
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect("{address}")
    given = json.dumps([sys.argv[4:], dict(os.environ), os.getcwd(), os.getpgrp()]) + "\\n"
    socket.send_fds(asked, [b" "], [0, 1, 2])
    asked.sendall(given.encode())
    for number in range(3):
        os.close(number)
    code = int(asked.makefile().read())
if code < 0:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def start(folder: Path) -> tuple[Path, subprocess.Popen[bytes]]:
    """The launcher, in this folder, and the server, which ends when its stdin does: with this process and its forks."""
    launcher, address = folder / "python", folder / "decoders"
    launcher.write_text(LAUNCHER.format(python=sys.executable, module=MODULE, address=address))
    launcher.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        number = listener.fileno()
        words = [sys.executable, __file__, str(number)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return launcher, subprocess.Popen(words, stdin=subprocess.PIPE, pass_fds=[number], env=environment)


def serve(number: int) -> None:
    """Forks until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for a decoder
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the server of commands
    with socket.socket(fileno=number) as listener:
        while 0 not in select.select([listener, 0], [], [])[0]:
            import_module(MODULE)
            asked, _ = listener.accept()
            if not os.fork():
                listener.close()
                _leave(partial(_answer, asked))
            asked.close()


def _answer(asked: socket.socket) -> int:
    """Starts one decoder, waits for it and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, numbers, *_ = socket.recv_fds(asked, 1, 3)
    with asked.makefile() as file:
        given: Any = json.loads(file.readline())
    decoder = os.fork()
    if not decoder:
        asked.close()
        _leave(partial(_decode, numbers, *given))
    for number in (0, *numbers):
        os.close(number)
    _, status = os.waitpid(decoder, 0)
    asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def _decode(numbers: list[int], words: list[str], environment: dict[str, str], cwd: str, group: int) -> int:
    """A decoder's life."""
    os.setpgid(0, group)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, given in enumerate(numbers):
        os.dup2(given, number)
        os.close(given)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    import_module(MODULE).main(int(words[0]), float(words[1]), words[2])
    return 0


def _leave(work: Callable[[], int]) -> Never:
    """Ends this process when the work is done, without what its parent would do at its end."""
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
