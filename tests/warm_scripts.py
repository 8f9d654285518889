"""Console scripts that start warm: files to be found on PATH, which have this process's server (warm.py) fork commands.

toto-train …  ── words, environment, folder, stdout and stderr ──▶  a thread of this process  ──▶  warm.start
              ◀── exit code ──────────────────────────────────────
"""

import json
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import warm

STAGES = {"toto-tokenize": "tokenize", "toto-shards": "shards", "toto-train": "train", "toto-eval": "evaluate"}
SCRIPT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    given = json.dumps([{stage!r}, sys.argv[1:], dict(os.environ), os.getcwd()]) + "\\n"
    socket.send_fds(asked, [b" "], [1, 2])
    asked.sendall(given.encode())
    code = int(asked.makefile().read())
sys.exit(code)
"""


@contextmanager
def warm_scripts(folder: Path) -> Iterator[None]:
    """Fills a folder with the four scripts, which work while this is entered."""
    address = connection.arbitrary_address("AF_UNIX")
    for name, stage in STAGES.items():
        script = folder / name
        script.write_text(SCRIPT.format(python=sys.executable, address=address, stage=stage))
        script.chmod(0o755)
    with socketserver.ThreadingUnixStreamServer(address, _Asked) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def stand_beside(folder: Path) -> None:
    """Makes this process believe that its Python lies in the folder, beside the scripts."""
    sys.executable = str(folder / "python")


class _Asked(socketserver.BaseRequestHandler):
    """One script's command, from its words to its exit code."""

    def handle(self) -> None:
        asked: socket.socket = self.request
        _, numbers, *_ = socket.recv_fds(asked, 1, 2)
        given: Any = json.loads(asked.makefile().readline())
        stage, words, environment, cwd = given
        with Connection(numbers[0], readable=False) as stdout, Connection(numbers[1], readable=False) as stderr:
            process = warm.start(stage, words, (stdout, stderr), environment, Path(cwd))
        process.join()
        asked.sendall(str(process.exitcode).encode())
