"""Checkpoints under a URI: found, and brought to this machine; every byte is checked before it is used.

s3://bucket/run ─newest with checkpoint.json─▶ files ─copies in the cache, by their hashes─▶ a folder here
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from toto.errors import UserError
from toto.files import cache_folder, write_whole
from toto.shards.store import RemoteStore, open_store
from toto.shards.store.copies import copy_path, fetched, is_whole
from toto.train.checkpoint.folder import FACTS, STATE, another, parse_facts, step_of, told_bytes

FACTS_BYTES = 1 << 28  # far more than checkpoint.json, or torch's .metadata, of thousands of processes
STALE_S = 86_400.0  # a folder of copies is in use for minutes; one that is a day old was left by a kill


def is_remote(place: str) -> bool:
    """Whether a path is a URI that is no folder of this machine."""
    return "://" in place and not place.startswith("file://")


def found_there(store: RemoteStore) -> list[str]:
    """Names of the finished checkpoints of a run, oldest first."""
    tops = (path.removesuffix(f"/{FACTS}") for path, *_ in store.tree() if path.endswith(f"/{FACTS}"))
    return sorted((name for name in tops if step_of(name) is not None), key=lambda name: step_of(name) or 0)


@contextmanager
def copied(uri: str) -> Iterator[tuple[Path, str]]:
    """A checkpoint, or the newest one of a run, in a folder of this machine; and its own URI.

    The folder goes at the end. UserError where there is none, or where it is damaged.
    """
    parent, name = _resolved(uri.rstrip("/"))
    with passing_folder() as folder:
        fetch(parent, name, folder / name)
        yield folder / name, f"{parent.uri}/{name}"


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A folder in the cache, which goes at the end; those that kills left go now."""
    place = cache_folder() / "checkpoints"
    place.mkdir(parents=True, exist_ok=True)
    for old in place.iterdir():
        with suppress(FileNotFoundError):  # another process has just ended, or removes it too
            if time.time() - old.stat().st_mtime > STALE_S:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder)


def fetch(store: RemoteStore, name: str, target: Path) -> None:
    """Brings the checkpoint `name` to `target`, which is there whole or not at all.

    UserError where it is damaged, or removed meanwhile. Nothing is fetched that is larger than checkpoint.json tells.
    """
    place = f"{store.uri}/{name}"
    try:
        check_size(store, f"{name}/{FACTS}", FACTS_BYTES)
        data = store.read(f"{name}/{FACTS}")
    except FileNotFoundError:
        raise UserError(f"{place} was removed meanwhile, as old checkpoints are; run the same command again") from None
    facts = parse_facts(data, place)
    told = told_bytes(facts)
    unfinished = target.with_name(f".{target.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / STATE).mkdir(parents=True)
    for file, digest in facts["files"].items():
        copy = _copy(store, f"{name}/{STATE}/{file}", digest, told.get(file, FACTS_BYTES), another(place))
        try:
            os.link(copy, unfinished / STATE / file)
        except OSError:  # another file system
            shutil.copyfile(copy, unfinished / STATE / file)
    write_whole(unfinished / FACTS, data)
    os.replace(unfinished, target)


def check_size(store: RemoteStore, name: str, most: int) -> None:
    """UserError for a file that is larger than it may be: a stranger's could fill memory or the disk."""
    size = store.size(name)
    if size > most:
        raise UserError(f"{store.uri}/{name} has {size:,} bytes, where {most:,} are the most that it may have")


def _copy(store: RemoteStore, name: str, digest: str, most: int, advice: str) -> Path:
    """A file's copy in the cache, under its hash."""
    target = copy_path(digest, f"{STATE}-{digest[:8]}.distcp")
    if not is_whole(target, target.name):
        try:
            check_size(store, name, most)
            fetched(target, f"{store.uri}/{name}", partial(store.download, name), advice)
        except FileNotFoundError:
            raise UserError(f"{store.uri}/{name} is missing; {advice}") from None
    return target


def _resolved(uri: str) -> tuple[RemoteStore, str]:
    """The run's store, and the name of the checkpoint in it."""
    store = open_store(uri)
    assert isinstance(store, RemoteStore), f"{uri} is no folder"
    if store.exists(FACTS):
        parent, _, name = uri.rpartition("/")
        above = open_store(parent)
        assert isinstance(above, RemoteStore), f"{uri} is no folder"
        return above, name
    inside = found_there(store)
    if not inside:
        raise UserError(f"{uri} is no checkpoint and no run with one: there is no {FACTS} in it or in a step-* below")
    return store, inside[-1]
