"""A Python that starts warm: a server's fork, which has imported what a process needs, forks it, as warm.py commands.

A command under test starts children as `sys.executable -P -m MODULE …`. That `sys.executable` is a launcher here,
which asks the server for that one process, and is Python itself for all other words, and on other systems than Linux:

launcher ── words, environment, folder, stdin, stdout, stderr ──▶  a fork, in the launcher's process group
         ◀── how it ended, and the launcher ends the same way ──   (it is killed when the launcher is)
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Never

CHILDREN = {  # module -> what it imports when it runs
    "toto.tokenize.decode_child": (),
    "toto.tokenize.weights_child": (
        *("torch", "toto.tokenize.tokenizers.autoencoder_net", "toto.tokenize.tokenizers.dvae_net"),
        "toto.tokenize.weights_convert",
    ),
}
LAUNCHER = """#!{python} -IS
import os, sys
if sys.platform != "linux" or sys.argv[1:3] != ["-P", "-m"] or sys.argv[3] not in {children}:
    os.execv("{python}", ["{python}", *sys.argv[1:]])
import json, resource, socket
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect("{address}")
    given = json.dumps([sys.argv, dict(os.environ), os.getcwd(), os.getpgrp()]) + "\\n"
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
    launcher, address = folder / "python", folder / "forks"
    launcher.write_text(LAUNCHER.format(python=sys.executable, children=[*CHILDREN], address=address))
    launcher.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        number = listener.fileno()
        command = [sys.executable, __file__, str(number)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return launcher, subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number], env=environment)


def serve(number: int) -> None:
    """Has the right fork of this process answer who asks, until stdin ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for a process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the server of commands
    forks: dict[str, socket.socket] = {}
    with socket.socket(fileno=number) as listener:
        while 0 not in select.select([listener, 0], [], [])[0]:
            import_module("toto.tokenize.decode_child")  # which all of them need
            asked, _ = listener.accept()
            with asked, suppress(OSError, ValueError):  # who asked was killed meanwhile
                _pass_on(asked, listener, forks)


def _pass_on(asked: socket.socket, listener: socket.socket, forks: dict[str, socket.socket]) -> None:
    """Gives who asks to the fork that has imported their module; makes that first, where there is none."""
    _, numbers, *_ = socket.recv_fds(asked, 1, 3)
    try:
        with asked.makefile() as file:
            given = file.readline()
        module = json.loads(given)[0][3]
        if module not in forks:
            forks[module], theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if not os.fork():
                _leave(partial(_fork_for_each, theirs, module, [listener, asked, *forks.values()], numbers))
            theirs.close()
        try:
            socket.send_fds(forks[module], [given.encode()], [asked.fileno(), *numbers])
        except OSError:  # the fork has ended; the next one to ask gets another
            forks.pop(module).close()
            raise
    finally:
        for number in numbers:
            os.close(number)


def _fork_for_each(asking: socket.socket, module: str, others: list[Any], numbers: list[int]) -> int:
    """Imports what processes of this module need, and forks one for each that is asked for."""
    for other in others:
        other.close()
    for number in numbers:
        os.close(number)
    with open(os.devnull) as nothing:  # number 0 stays taken; its end is what the server lives until
        os.dup2(nothing.fileno(), 0)
    for name in (module, *CHILDREN[module]):
        import_module(name)
    gc.freeze()  # no process looks through what all of them share
    while True:
        given, passed, *_ = socket.recv_fds(asking, 1 << 18, 4)
        if not given:
            return 0
        if not os.fork():
            asking.close()
            _leave(partial(_answer, socket.socket(fileno=passed[0]), passed[1:], json.loads(given)))
        for number in passed:
            os.close(number)


def _answer(asked: socket.socket, numbers: list[int], given: Any) -> int:
    """Starts one process, waits for it and says how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if not pid:
        asked.close()
        _leave(partial(_live, numbers, *given))
    for number in numbers:
        os.close(number)
    if asked in select.select([asked, os.pidfd_open(pid)], [], [])[0]:  # nobody listens any more
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    asked.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    return 0


def _live(numbers: list[int], words: list[str], environment: dict[str, str], cwd: str, group: int) -> int:
    """The life of the process: what a fresh Python would do with these words, the launcher's own name first."""
    os.setpgid(0, group)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, given in enumerate(numbers):
        os.dup2(given, number)
        os.close(given)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    del sys.modules[words[3]], sys.path[0]
    sys.argv[1:] = words[4:]
    runpy.run_module(words[3], run_name="__main__", alter_sys=True)
    return 0


def _leave(work: Callable[[], int]) -> Never:
    """Ends this process when the work is done, without what its parent would do at its end."""
    code = 1
    try:
        code = work()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
