"""Commands in processes of their own that start warm: a server that has imported what they need forks them.

    process = start("train", ["pretrain", …], (stdout, stderr))
    process.join()

One costs as little as its work, where a fresh Python spends a second or two on imports. All else is as in a fresh one:
its own memory, environment, current folder, signals and exit code.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

IMPORTED = ["toto.tokenize.cli", "toto.shards.cli", "toto.train.cli", "toto.evaluate.cli"]
IMPORTED += ["toto.train.begin", "toto.train.summary", "toto.train.checkpoint.safe_reader"]
IMPORTED += ["torch._dynamo", "torch.utils.tensorboard.writer", "s3fs"]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(IMPORTED)


def start(
    stage: str,
    arguments: Sequence[str],
    output: tuple[Path, Path],
    environment: Mapping[str, str],
    cwd: Path | None = None,
    first: Callable[[], None] | None = None,
) -> BaseProcess:
    """Starts the command line of a stage; stdout and stderr go to files. `first` is called before it, and pickled."""
    given = (stage, list(arguments), output, dict(environment), cwd or Path.cwd(), first)
    process = _server.Process(target=_run, args=given)
    process.start()
    return process


def _run(
    stage: str,
    arguments: list[str],
    output: tuple[Path, Path],
    environment: dict[str, str],
    cwd: Path,
    first: Callable[[], None] | None,
) -> None:
    multiprocessing.set_start_method("fork", force=True)  # as in any other process; the server's children inherit its
    for number, path in enumerate(output, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["toto-eval" if stage == "evaluate" else f"toto-{stage}", *arguments]
    if first is not None:
        first()
    import_module(f"toto.{stage}.cli").main()
