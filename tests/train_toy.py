"""A model that trains in a second, and processes that train it: what the tests of the trainer share.

Each process runs the command line of toto-train to its exit code, in a process group of its own.
"""

import os
import random
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import warm
from token_world import moving_videos, write_tokens

from toto.config import ModelConfig
from toto.train import checkpoint
from toto.train.checkpoint.model_facts import model_config
from toto.train.models import make_model
from toto.train.optimizer import make_optimizer
from toto.train.watch.metrics import read_metrics

MODEL: dict[str, Any] = {"dim": 32, "layers": 2, "heads": 2, "mlp_hidden": 64}
USED = 68  # ids of 64 codes
SHAPES = {
    "llama": ModelConfig(name="small", **MODEL),
    "gpt2": ModelConfig(name="small", arch="gpt2", **MODEL),
    "mamba": ModelConfig(name="small", arch="mamba", dim=16, layers=2),
}
RECIPE = {
    "frames": 4,
    "batch_tokens": 512,  # 8 sequences of 4 frames of 4×4
    "steps": 18,
    "warmup_steps": 4,
    "precision": "fp32",
    "micro_sequences": 4,
    "log_every": 2,
    "validate_every": 6,
    "validation_sequences": 8,
    "checkpoint_every": 6,
    "keep_checkpoints": 3,
}
SPEED = ("tokens_per_s", "mfu", "mfu_palm", "seconds")  # of a line of metrics.jsonl: not the same twice
NAN_STEPS = "NAN_STEPS"  # among the extra variables of a command: the steps whose losses are NaN
SECONDS = 240  # until a process that does not end is given up


def world(root: Path) -> Path:
    """Shards to train on in several files and batches, with a split to validate on."""
    videos = [*moving_videos(96, seed=1), *moving_videos(16, "val", seed=2)]
    return write_tokens(root, videos, unit_sources=48, batch_bytes=16_000)


def sets(**changed: Any) -> list[str]:
    """The `--set` options of the toy; `changed` are keys of its recipe."""
    keys = [f"models.tiny.{key}={value}" for key, value in MODEL.items()]
    keys += [f"recipes.demo.{key}={value}" for key, value in {**RECIPE, **changed}.items()]
    return [word for key in keys for word in ("--set", key)]


def command_line(data: Path, out: Path, *more: str, **changed: Any) -> list[str]:
    """The arguments of toto-train that train the toy."""
    chosen = ["--size", "tiny", "--recipe", "demo", "--data", str(data), "--out", str(out)]
    return ["pretrain", *chosen, *sets(**changed), *more]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # below 0: the number of the signal that killed it
    stdout: str
    stderr: str

    def failed(self, code: int, *said: str) -> bool:
        """Whether it ended with this code and one error of one or two lines that says all of this."""
        lines = self.stderr[self.stderr.find("error: ") :].splitlines()
        whole = len(lines) in (1, 2) and "Traceback" not in self.stderr and "error: " in self.stderr
        return self.code == code and whole and all(text in "\n".join(lines) for text in said)


@dataclass(frozen=True)
class Strike:
    """A signal that a process sends itself before its n-th change of a file in the run's folder."""

    change: int  # n; a file opened to write, renamed or removed, a folder made
    number: signal.Signals = signal.SIGKILL
    group: bool = False  # to the loader's workers too, as Ctrl-C in a terminal


class Command:
    """A command line of toto-train that is going on in a process of its own."""

    def __init__(
        self, arguments: Sequence[str], place: Path, threads: int = 1, strike: "Strike | None" = None, **extra: str
    ) -> None:
        """Output goes to files beside `place`, where the run's folder is; `extra` into the environment."""
        place.parent.mkdir(parents=True, exist_ok=True)
        out, error = (place.with_name(f"{place.name}.{extra.get('RANK', '')}{name}") for name in ("stdout", "stderr"))
        self._output = out, error
        first = partial(_prepare, threads, place, strike)
        self.process = warm.start("train", arguments, self._output, {**os.environ, **extra}, first=first)

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        assert self.process.pid is not None
        return self.process.pid

    def ended(self) -> Ended:
        """Waits for its end; a process that does not end is killed, and AssertionError says so."""
        self.process.join(SECONDS)
        if self.process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            raise AssertionError(f"no end after {SECONDS} s: {self._output[1].read_text()}")
        assert self.process.exitcode is not None
        return Ended(self.process.exitcode, *(path.read_text() if path.exists() else "" for path in self._output))


def call(arguments: Sequence[str], place: Path, **extra: Any) -> Ended:
    """Runs a command line of toto-train to its end."""
    return Command(arguments, place, **extra).ended()


def call_ranks(arguments: Sequence[str], place: Path, ranks: int, **extra: Any) -> list[Ended]:
    """The same in as many processes as ranks, with the variables that torchrun sets."""
    team = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), **meeting()}
    numbers = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    commands = [Command(arguments, place, **team, **number, **extra) for number in numbers]
    return [command.ended() for command in commands]


def meeting() -> dict[str, str]:
    """Where ranks on this machine meet: a port that nobody listens on, below those that systems hand out by themselves.

    One of those could be another's before a rank listens on it, or both ends of the same connection.
    """
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as free, suppress(OSError):
            free.bind(("localhost", port))
            return {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}


def trained(data: Path, out: Path, *more: str, ranks: int = 1, threads: int = 1, **changed: Any) -> Path:
    """The folder of a run that was trained (on) without any disturbance."""
    arguments = command_line(data, out, *more, **changed)
    ends = call_ranks(arguments, out, ranks, threads=threads) if ranks > 1 else [call(arguments, out, threads=threads)]
    for end in ends:
        assert end.code == 0, end.stderr
    return out


def history(run: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl holds but for speeds: batches, losses, norms, rates, held-out losses."""
    return [{key: value for key, value in line.items() if key not in SPEED} for line in read_metrics(run)]


def steps(run: Path) -> list[dict[str, Any]]:
    """The lines of training steps."""
    return [line for line in history(run) if "batch" in line]


def batches(run: Path) -> list[tuple[int, str]]:
    """Step and hash of the batch, in the order of the log."""
    return [(line["step"], line["batch"]) for line in steps(run)]


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    return [line["loss"] for line in steps(run)]


def state(run: Path) -> dict[str, torch.Tensor]:
    """Weights and moments of the newest checkpoint, by name."""
    folder = checkpoint.resolve(run)
    facts = checkpoint.read_facts(folder)
    model = make_model(model_config(facts["model"], str(folder)), facts["used_ids"])
    recipe = type("Training", (), facts["training"])
    tensors = checkpoint.tensors_of(model, make_optimizer(model, recipe))  # type: ignore[arg-type]
    checkpoint.load(folder, tensors)
    return {f"{section}.{name}": tensor for section, named in tensors.items() for name, tensor in named.items()}


def same_state(one: Path, other: Path) -> bool:
    """Whether the newest checkpoints of two runs are of one step and hold the same bits."""
    if checkpoint.resolve(one).name != checkpoint.resolve(other).name:
        return False
    mine, theirs = state(one), state(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def _prepare(threads: int, place: Path, strike: Strike | None) -> None:
    os.setpgrp()
    torch.set_num_threads(threads)
    if strike:
        _arm(strike, str(place))
    if NAN_STEPS in os.environ:
        _poison({int(step) for step in os.environ[NAN_STEPS].split()})


def _poison(steps: set[int]) -> None:
    """Losses of these steps (1 is the first) come out as NaN, and gradients with them."""
    from toto.train import loop

    def poisoned(model: torch.nn.Module, optimizer: Any, guard: Any, parts: Any, step: int, *rest: Any) -> Any:
        if step + 1 not in steps:
            return right(model, optimizer, guard, parts, step, *rest)
        hook = model.register_forward_hook(lambda module, given, losses: losses * torch.nan)
        try:
            return right(model, optimizer, guard, parts, step, *rest)
        finally:
            hook.remove()

    right, loop.one_step = loop.one_step, poisoned


def _arm(strike: Strike, place: str) -> None:
    left, own = strike.change, os.getpid()

    def hook(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open":
            changes = isinstance(given[1], str) and bool(set(given[1]) & set("wax+"))
        else:
            changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
        if changes and place in str(given[0]) and os.getpid() == own:
            left -= 1
            if not left:
                (os.killpg if strike.group else os.kill)(own, strike.number)

    sys.addaudithook(hook)
