"""Checkpoints: a folder that is there whole or not at all, with a hash for every file in it.

    runs/large/step-000001000/checkpoint.json    what it is: model, tokenizer, recipe, step; sha256 of the files below
                              state/             tensors of model and optimiser (torch.distributed.checkpoint)

It is written as `.step-000001000.partial`, synced, then renamed: kill -9 or a full disk leave the last good one. Any
number of processes may read what any other number wrote.
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toto.errors import UserError
from toto.files import sync, write_whole
from toto.shards.hashing import file_sha256, json_sha256
from toto.train.parallel import Team

FORMAT = 1
FACTS = "checkpoint.json"
STATE = "state"
_NAME = re.compile(r"step-(\d{9,})")
Tensors = dict[str, dict[str, torch.Tensor]]


def name_of(step: int) -> str:
    """The folder of the checkpoint after `step` steps."""
    return f"step-{step:09d}"


def found(run: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    folders = [path for path in run.glob("step-*") if _NAME.fullmatch(path.name) and (path / FACTS).is_file()]
    return sorted(folders, key=lambda path: int(path.name.split("-")[1]))


def resolve(path: Path) -> Path:
    """A checkpoint's folder; of a run's folder its newest checkpoint. UserError when there is none."""
    if (path / FACTS).is_file():
        return path
    inside = found(path)
    if not inside:
        raise UserError(f"{path} is no checkpoint and no run with one: there is no {FACTS} in it or in a step-* below")
    return inside[-1]


def save(run: Path, step: int, tensors: Tensors, facts: dict[str, Any], team: Team) -> Path:
    """Writes `run/step-…` with all processes; `facts` is a JSON value that readers get back.

    UserError when it cannot be written; nothing of it is left then, and older checkpoints are untouched.
    """
    import torch.distributed.checkpoint as dcp  # here: it takes as long as torch itself, and plans need none

    from toto.train.safe_reader import described

    target = run / name_of(step)
    partial = run / f".{target.name}.partial"
    failure = ""
    try:
        if team.is_first:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / STATE).mkdir(parents=True)
        team.wait()
        writer = dcp.FileSystemWriter(partial / STATE, single_file_per_rank=True, sync_files=True)
        with _quiet():
            metadata = dcp.save(tensors, storage_writer=writer, no_dist=team.world == 1)
        if team.is_first:
            _publish(partial, target, {**facts, "step": step, "tensors": described(metadata)})
    except (OSError, RuntimeError, dcp.CheckpointException) as error:
        failure = "the disk is full" if _is_full(run, tensors) else _cause(error)
    if team.agree(int(bool(failure))):
        if team.is_first:
            shutil.rmtree(partial, ignore_errors=True)
        last = found(run)[-1:]
        advice = f"the last good one is {last[0]}" if last else "there is none yet"
        raise UserError(f"{target}: this checkpoint could not be written ({failure or 'on another process'}); {advice}")
    return target


def read_facts(folder: Path) -> dict[str, Any]:
    """What checkpoint.json says, checked against its own hash; UserError for what is no checkpoint of toto."""
    path = folder / FACTS
    try:
        value = json.loads(path.read_bytes())
    except OSError:
        raise UserError(f"{folder} is no checkpoint: it has no {FACTS}") from None
    except ValueError:
        raise UserError(f"{path} is damaged: not JSON; {_another(folder)}") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise UserError(f"{path}: not a checkpoint of format {FORMAT}, which this version of toto reads")
    stated = value.pop("hash", None)
    if stated != json_sha256(value):
        raise UserError(f"{path} is damaged: it is not as it was written; {_another(folder)}")
    kinds = {"files": dict, "tensors": dict, "step": int, "model": dict, "tokenizer": dict, "recipe": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(value.get(name), kind)]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} missing or not what it must be: not written by toto-train")
    return value


def identity(facts: dict[str, Any]) -> str:
    """16 hex digits that say which checkpoint this is: the same for copies of it, wherever they lie."""
    return json_sha256(facts)[:16]


def load(folder: Path, tensors: Tensors, team: Team | None = None) -> None:
    """Fills `tensors` in place from a checkpoint; UserError when it is damaged or holds other tensors.

    Fewer tensors than the checkpoint has are fine: an evaluation wants the model alone.
    """
    import torch.distributed.checkpoint as dcp

    from toto.train.safe_reader import SafeReader

    facts = read_facts(folder)
    verify(folder, facts)
    reader = SafeReader(folder / STATE, facts["tensors"], set(facts["files"]))
    try:
        with _quiet():
            dcp.load(tensors, storage_reader=reader, no_dist=team is None or team.world == 1)
    except (RuntimeError, ValueError, dcp.CheckpointException) as error:
        raise UserError(f"{folder} does not fit the model that it names ({_cause(error)})") from None


def verify(folder: Path, facts: dict[str, Any]) -> None:
    """Checks every file's sha256; UserError names the first that is missing or not as it was written."""
    for name, digest in facts["files"].items():
        path = folder / STATE / Path(name).name  # a file of this folder, whatever it says
        if not path.is_file() or file_sha256(path) != digest:
            what = "is damaged" if path.is_file() else "is missing"
            raise UserError(f"{path} {what}; {_another(folder)}")


def _another(folder: Path) -> str:
    return f"take another checkpoint: remove {folder}, and the run goes on from the one before"


def retain(run: Path, newest: int, every: int) -> None:
    """Removes old checkpoints but for the newest ones and those at multiples of `every` steps (0: of none)."""
    for folder in found(run)[:-newest]:
        if not every or int(folder.name.split("-")[1]) % every:
            doomed = folder.with_name(f".{folder.name}.removed")
            os.replace(folder, doomed)  # so that a kill leaves no half of one
            shutil.rmtree(doomed, ignore_errors=True)


def clean(run: Path) -> None:
    """Removes what a killed process left of checkpoints that it wrote or removed."""
    for pattern in (".step-*.partial", ".step-*.removed"):
        for folder in run.glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, guard: torch.Tensor | None = None
) -> Tensors:
    """The tensors that decide how a run goes on, by name; no Python object among them, so nothing to unpickle."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    if optimizer is None:
        return {"model": parameters}
    state: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        for key, value in _moments(optimizer, parameter).items():
            state[f"{name}.{key}"] = value
    return {"model": parameters, "optimizer": state, **({} if guard is None else {"guard": {"state": guard}})}


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, torch.Tensor]:
    """AdamW's state of one parameter, made where the first step has not made it yet."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return state


def _publish(partial: Path, target: Path, facts: dict[str, Any]) -> None:
    files = {path.name: file_sha256(path) for path in sorted((partial / STATE).iterdir())}
    value = {**facts, "format": FORMAT, "files": files}
    write_whole(partial / FACTS, json.dumps({**value, "hash": json_sha256(value)}, indent=1).encode())
    if target.exists():  # of an earlier try of the same run
        shutil.rmtree(target)
    os.replace(partial, target)
    sync(target.parent)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong; torch wraps an error of the disk in one of its own."""
    failures = getattr(error, "failures", None)
    inner: Any = next(iter(failures.values()))[0] if failures else error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0][:200]


def _is_full(run: Path, tensors: Tensors) -> bool:
    """Whether there is less space than a checkpoint takes: torch's writer tells of a full disk in words of its own."""
    needed = sum(tensor.nbytes for named in tensors.values() for tensor in named.values())
    return run.is_dir() and shutil.disk_usage(run).free < needed


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.distributed is disabled.*")
        yield
