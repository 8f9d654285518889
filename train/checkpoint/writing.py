"""Writes a checkpoint with all processes: each its own tensors, hashed; the first one publishes when all are done.

    room is made ─▶ .step-000001000.partial/state/__RANK_0.distcp ─hash, upload─▶ checkpoint.json ─▶ step-000001000

What goes wrong on one process is told by all of them, and leaves nothing behind.
"""

import os
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from toto.errors import UserError
from toto.files import sync, write_whole
from toto.shards.hashing import file_sha256
from toto.train.checkpoint.folder import FACTS, STATE, found, name_of, with_hash
from toto.train.checkpoint.mirror import Mirror
from toto.train.checkpoint.reading import cause, quiet
from toto.train.checkpoint.tensors import Tensors, bytes_of, is_plain
from toto.train.parallel import Team

T = TypeVar("T")
FELL_SHORT = ("inline_container", "unexpected pos", "PytorchStreamWriter", "File too large", "Disk quota exceeded")


class Failed(Exception):
    """What went wrong on one process at least, in words."""


def save(
    run: Path, step: int, tensors: Tensors, facts: dict[str, Any], team: Team, mirror: Mirror | None = None
) -> Path:
    """Writes `run/step-…`, and the same where `mirror` says; `facts` is a JSON value that readers get back.

    Each process gives the tensors that it is to write (`share_of`). UserError on all of them when one cannot write;
    nothing of it is left then, and older checkpoints are untouched.
    """
    target = run / name_of(step)
    partial = run / f".{target.name}.partial"
    try:
        together(team, lambda: _clear(partial, team, mirror, step))
        together(team, lambda: (partial / STATE).mkdir(parents=True, exist_ok=True))
        described = together(team, lambda: _write(partial / STATE, tensors, team))[0]
        files = together(team, lambda: _seal(partial / STATE, step, team, mirror))
        value = {**facts, "step": step, "tensors": described, "files": dict(sorted(_merged(files).items()))}
        together(team, lambda: _publish(partial, target, value, mirror) if team.is_first else None)
    except Failed as failed:
        shutil.rmtree(partial, ignore_errors=True)
        last = mirror.newest if mirror else next((str(path) for path in found(run)[-1:]), None)
        advice = f"the last good one is {last}" if last else "there is none yet"
        place = mirror.place(target.name) if mirror else target
        raise UserError(f"{place}: this checkpoint could not be written ({failed}); {advice}") from None
    if mirror and team.leads:  # where each machine has a part only, all are in the store now
        shutil.rmtree(partial, ignore_errors=True)
    return target


def together(team: Team, act: Callable[[], T]) -> list[T]:
    """What `act` returns on each process; Failed on all of them where it fails on one.

    `act` itself waits for no other process: one that failed would not come.
    """
    import torch.distributed.checkpoint as dcp

    result, failure = None, ""
    try:
        result = act()
    except (OSError, RuntimeError, UserError, dcp.CheckpointException) as error:
        failure = cause(error)
    told = team.gathered((result, failure))
    for _, said in told:
        if said:
            raise Failed(said)
    return [value for value, _ in told]


def _clear(partial: Path, team: Team, mirror: Mirror | None, step: int) -> None:
    """Removes what an earlier try of the same run left, here and there."""
    if team.leads:
        shutil.rmtree(partial, ignore_errors=True)
    if mirror and team.is_first:
        mirror.remove(step)


def _write(folder: Path, tensors: Tensors, team: Team) -> dict[str, Any] | None:
    """Writes this process's tensors; the first one returns where all of them lie."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
    from torch.distributed.checkpoint.storage import WriteResult

    from toto.train.checkpoint.safe_reader import described

    assert all(is_plain(tensor) for named in tensors.values() for tensor in named.values())

    found: dict[str, Any] = {}

    class Writer(dcp.FileSystemWriter):
        def storage_meta(self) -> StorageMeta:
            """Nothing of this machine and moment: the same tensors are the same bytes."""
            return StorageMeta()

        def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
            """On the first process: torch 2.11 keeps to itself where the tensors lie."""
            super().finish(metadata, results)
            found.update(described(metadata, chain(*results)))

    try:
        with quiet():
            writer = Writer(folder, single_file_per_rank=True, sync_files=True)
            alone = team.world == 1
            dcp.save(tensors, storage_writer=writer, process_group=team.group, no_dist=alone)
    except (OSError, RuntimeError, dcp.CheckpointException) as error:
        raise RuntimeError(_why(error, folder, tensors)) from None
    return found or None


def _seal(folder: Path, step: int, team: Team, mirror: Mirror | None) -> dict[str, str]:
    """Hashes what this process wrote, and uploads it: name -> sha256."""
    names = [path.name for path in folder.iterdir() if path.name.startswith(f"__{team.rank}_")]
    hashes = {}
    for name in [*names, *([".metadata"] if team.is_first else [])]:
        hashes[name] = file_sha256(folder / name)
        if mirror:
            mirror.upload(folder / name, f"{name_of(step)}/{STATE}/{name}")
    return hashes


def _merged(files: list[dict[str, str]]) -> dict[str, str]:
    return {name: digest for own in files for name, digest in own.items()}


def _publish(partial: Path, target: Path, facts: dict[str, Any], mirror: Mirror | None) -> None:
    data = with_hash(facts)
    missing = [name for name in facts["files"] if not (partial / STATE / name).is_file()]
    if missing and not mirror:
        raise UserError(f"{missing[0]} is not there: machines need a folder in common, or --out with a URI")
    write_whole(partial / FACTS, data)
    if mirror:
        mirror.publish(target.name, data)
    if missing:
        return
    if target.exists():  # of an earlier try of the same run
        shutil.rmtree(target)
    os.replace(partial, target)
    sync(target.parent)


def _why(error: BaseException, folder: Path, tensors: Tensors) -> str:
    """What went wrong: torch's writer tells of writes that fell short in words of its own."""
    if folder.is_dir() and shutil.disk_usage(folder).free < bytes_of(tensors):
        return "the disk is full"
    said = cause(error)
    if any(words in said for words in FELL_SHORT):
        return "a write fell short: no room, or a quota or a limit on files' sizes; `df`, `quota` and `ulimit -f` tell"
    return said
