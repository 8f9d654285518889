"""A folder that appears whole or not at all: made under another name beside it, synced, then renamed.

What a killed export left behind is known by its lock, which the system gives back, and goes away with the next export
to the same place. Nothing is replaced but an earlier export, and that only when it is asked for.
"""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from toto.errors import UserError, naming
from toto.files import sync
from toto.shards.export.outgoing import META, Outgoing

LOCK = ".lock"  # in every unfinished one


@contextmanager
def whole_folder(out: Path, force: bool) -> Iterator[Outgoing]:
    """An empty folder to fill, which is `out` once the block has ended well. UserError where `out` holds something."""
    _refuse_taken(out, force)
    with naming(out), own_folder(out) as partial:
        outgoing = Outgoing(partial)
        yield outgoing
        outgoing.finish()
        (partial / LOCK).unlink()
        for path in partial.rglob("*"):
            sync(path)
        _refuse_taken(out, force)
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


def _refuse_taken(out: Path, force: bool) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UserError(f"{out} is not a folder; choose another --out")
    if not out.exists() or not any(out.iterdir()):
        return
    if not _is_export(out):
        raise UserError(f"{out} holds something that is not an export; choose another --out")
    if not force:
        raise UserError(f"{out} holds an export already; choose another --out, or replace it with --force")


def _is_export(out: Path) -> bool:
    try:
        return "toto_export" in json.loads((out / META).read_bytes())
    except (OSError, ValueError, TypeError):
        return False


def _rename(partial: Path, out: Path) -> None:
    old = partial.with_suffix(".old")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    sync(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _clear_leftovers(out: Path) -> None:
    for left in out.parent.glob(f".{_escaped(out.name)}.????????.partial"):
        with suppress(OSError), open(left / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
