"""A checkpoint's tensors, verified and read in place, by one process or many; nothing is unpickled."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toto.errors import UserError
from toto.train.checkpoint.folder import STATE, read_facts, verify
from toto.train.checkpoint.tensors import Tensors
from toto.train.parallel import Team


def load(folder: Path, tensors: Tensors, team: Team | None = None) -> None:
    """Fills `tensors` in place from a checkpoint; UserError when it is damaged or holds other tensors.

    Fewer tensors than the checkpoint has are fine: an evaluation wants the model alone.
    """
    import torch.distributed.checkpoint as dcp  # here: it takes as long as torch itself, and plans need none

    from toto.train.checkpoint.safe_reader import SafeReader

    facts = read_facts(folder)
    verify(folder, facts)
    reader = SafeReader(folder / STATE, facts["tensors"], set(facts["files"]))
    try:
        with quiet():
            dcp.load(tensors, storage_reader=reader, no_dist=team is None or team.world == 1)
    except (RuntimeError, ValueError, dcp.CheckpointException) as error:
        raise UserError(f"{folder} does not fit the model that it names ({cause(error)})") from None


def cause(error: BaseException) -> str:
    """The first line of what went wrong; torch wraps an error of the disk in one of its own."""
    failures = getattr(error, "failures", None)
    inner: Any = next(iter(failures.values()))[0] if failures else error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0][:200]


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's remark that a single process is a single process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.distributed is disabled.*")
        yield
