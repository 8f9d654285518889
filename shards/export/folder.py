"""A folder that appears whole or not at all: made under another name beside it, synced, then renamed.

What a killed export left behind is known by its lock, which the system gives back, and goes away with the next export
to the same place. Nothing is replaced but an earlier export that holds its own files alone, when it is asked for.
"""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from toto.errors import UserError, naming
from toto.files import sync
from toto.shards.export.earlier import refuse_taken
from toto.shards.export.outgoing import META, Outgoing

LOCK = ".lock"  # in every unfinished one


@contextmanager
def whole_folder(out: Path, force: bool) -> Iterator[Outgoing]:
    """An empty folder to fill, which is `out` once the block has ended well. UserError where `out` holds something."""
    refuse_folder(out, force)
    with naming(out), own_folder(out) as partial:
        outgoing = Outgoing(partial)
        yield outgoing
        outgoing.finish()
        (partial / LOCK).unlink()
        for path in partial.rglob("*"):
            sync(path)
        refuse_folder(out, force)
        _rename(partial, out)


@contextmanager
def own_folder(beside: Path) -> Iterator[Path]:
    """An empty folder of this process beside a path, gone at the end. Those that killed processes left go first."""
    beside.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(beside)
    partial = beside.with_name(f".{beside.name}.{uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        with open(partial / LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_folder(out: Path, force: bool) -> None:
    """UserError where `out` is no folder, or holds what is not to be replaced."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder; choose another --out")
    there = [path.name for path in out.iterdir()] if out.exists() else []
    if META in there:  # else it is no export, and may be anything, however large
        there = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    refuse_taken(out, there, lambda name: (out / name).read_bytes(), force)


def _rename(partial: Path, out: Path) -> None:
    old = partial.with_suffix(".old")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    sync(out.parent)
    for replaced in _hidden(out, "old"):  # and what one that was killed here had replaced
        shutil.rmtree(replaced, ignore_errors=True)


def _clear_leftovers(out: Path) -> None:
    for left in _hidden(out, "partial"):
        with suppress(OSError), open(left / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def _hidden(out: Path, suffix: str) -> list[Path]:
    """The folders beside it that exports to it made."""
    return list(out.parent.glob(f".{_escaped(out.name)}.????????.{suffix}"))


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
