"""A Python that starts warm: a server's fork, which has imported what a process needs, forks it, as warm.py commands.

A command under test starts children as `sys.executable -P -m MODULE …`, and Ray its workers as `sys.executable
…/default_worker.py …`. That `sys.executable` is a launcher here, which asks the server for that one process, and is
Python itself for all other words, and for all words while a file `cold` lies beside it:

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
RAY_WORKER = "/ray/_private/workers/default_worker.py"
FOR_RAY = ("ray._private.workers.default_worker", "toto.tokenize.unit_actor", "toto.tokenize.tokenizers.dct")
READ_ONCE = ("RAY_JOB_ID", "RAY_RAYLET_PID")  # by Ray, when it is imported: each job on a node has its own fork
LAUNCHER = """#!{python} -IS
import os, sys
warm = sys.argv[1:3] == ["-P", "-m"] and sys.argv[3] in {children} or sys.argv[1].endswith("{worker}")
if not warm or os.path.exists(os.path.join(os.path.dirname(sys.argv[0]), "cold")):
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
    words = {"python": sys.executable, "children": [*CHILDREN], "worker": RAY_WORKER, "address": address}
    launcher.write_text(LAUNCHER.format(**words))
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
    forks: dict[tuple[str, ...], socket.socket] = {}
    with socket.socket(fileno=number) as listener:
        while 0 not in select.select([listener, 0], [], [])[0]:
            import_module("toto.tokenize.decode_child")  # which all of them need
            asked, _ = listener.accept()
            with asked, suppress(OSError, ValueError):  # who asked was killed meanwhile
                _pass_on(asked, listener, forks)


def _pass_on(asked: socket.socket, listener: socket.socket, forks: dict[tuple[str, ...], socket.socket]) -> None:
    """Gives who asks to the fork of their kind; makes that first, where there is none."""
    _, numbers, *_ = socket.recv_fds(asked, 1, 3)
    try:
        with asked.makefile() as file:
            given = file.readline()
        words, environment, *_ = json.loads(given)
        kind = (words[3],) if words[1] == "-P" else tuple(environment.get(name, "") for name in READ_ONCE)
        if kind not in forks:
            forks[kind], theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            if not os.fork():
                _leave(partial(_fork_for_each, theirs, kind, [listener, asked, *forks.values()], numbers))
            theirs.close()
        try:
            socket.send_fds(forks[kind], [given.encode()], [asked.fileno(), *numbers])
        except OSError:  # the fork has ended; the next one to ask gets another
            forks.pop(kind).close()
            raise
    finally:
        for number in numbers:
            os.close(number)


def _fork_for_each(asking: socket.socket, kind: tuple[str, ...], others: list[Any], numbers: list[int]) -> int:
    """Imports what processes of this kind need, and forks one for each that is asked for."""
    for other in others:
        other.close()
    for number in numbers:
        os.close(number)
    with open(os.devnull) as nothing:  # number 0 stays taken; its end is what the server lives until
        os.dup2(nothing.fileno(), 0)
    of_ray = len(kind) > 1
    if of_ray:
        os.environ |= dict(zip(READ_ONCE, kind, strict=True)) | {"SPT_NOENV": "1"}
    for module in FOR_RAY if of_ray else (*kind, *CHILDREN[kind[0]]):
        import_module(module)
    if of_ray:
        import_module("ray._raylet").setproctitle("warm")  # its first call looks through an environment as it was
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
    if words[1] == "-P":
        del sys.modules[words[3]], sys.path[0]
        sys.argv[1:] = words[4:]
        runpy.run_module(words[3], run_name="__main__", alter_sys=True)
        return 0
    sys.executable, *sys.argv = words  # decoders of a worker start warm, too
    sys.path[0] = os.path.dirname(words[1])
    runpy.run_path(words[1], run_name="__main__")
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
