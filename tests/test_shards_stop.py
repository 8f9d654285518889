"""A stop at an awkward moment: one line and the exit code of a stop, no traceback of this process or of its workers."""

import subprocess
import sys

import pytest

# SIGTERM between the start of a worker process and the moment at which it is told what to do
WHILE_STARTING = """
import os, signal
from multiprocessing import util
import click
from toto import command
from toto.shards.workers import each

spawn = util.spawnv_passfds
def stopped(path, args, fds):
    child = spawn(path, args, fds)
    if any(b"spawn_main" in os.fsencode(word) for word in args):  # no other helper of multiprocessing
        os.kill(os.getpid(), signal.SIGTERM)
    return child
util.spawnv_passfds = stopped

@click.command()
def count():
    list(each(int, [1, 2], 2))

if __name__ == "__main__":
    command.run(count)
"""
# a library that makes an error of its own of whatever is raised inside it, as pyarrow does
IN_A_LIBRARY = """
import os, signal
import click
from toto import command

@click.command()
def count():
    try:
        os.kill(os.getpid(), signal.{signal})
    except BaseException:
        pass
    raise TypeError("not a number")

command.run(count)
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "name"),
    [
        (WHILE_STARTING, 143, "SIGTERM"),
        (IN_A_LIBRARY.format(signal="SIGTERM"), 143, "SIGTERM"),
        (IN_A_LIBRARY.format(signal="SIGINT"), 130, "Ctrl-C"),
    ],
    ids=["while a worker starts", "in a library", "Ctrl-C in a library"],
)
def test_a_stop_is_told_in_one_line(
    code: str, exit_code: int, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    script = tmp_path_factory.mktemp("stop") / "script.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (
        exit_code,
        f"error: stopped by {name}; run the same command again to go on\n",
    )
