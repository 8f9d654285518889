"""Files and the files in tars, as one listing: what readers of layouts that come as tars start from.

    root/a/1.mp4                        -> key a/1.mp4          uri root/a/1.mp4
    root/b.tar with 2.mp4               -> key b/2.mp4          uri part:OFFSET+SIZE+HEAD+HASH:root/b.tar
    root/all.tar with n01.tar with 3    -> key all/n01/3        uri part:OFFSET+SIZE+HEAD+HASH:root/all.tar

Tars are read by their headers, once (tar_index), several at a time, and never extracted. A compressed tar cannot be
read at random: it is refused, or counted by readers that find enough beside it.
"""

import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import Progress

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.clip import SourceError
from toto.tokenize.part import Part
from toto.tokenize.sources import tar_cache
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.files import File, list_files
from toto.tokenize.sources.names import is_passed_over, shown, suffix_of
from toto.tokenize.sources.tar_index import INDEX, PACKED, TAR, Index, index_of
from toto.tokenize.transient import TransientError

_PACKED = re.compile(r"\.(tgz|tbz2?|txz|tzst|tar\.(gz|bz2|xz|zst|lz4|Z))$", re.IGNORECASE)
_PACKED_SUFFIXES = frozenset(".tgz .tbz .tbz2 .txz .tzst .gz .bz2 .xz .zst .lz4 .z".split())
_UNPACKERS = {"gz": "gunzip", "bz2": "bunzip2", "xz": "unxz", "zst": "unzstd", "lz4": "unlz4", "z": "uncompress"}
TARS_AT_ONCE = 16
ROWS_AT_ONCE = 65_536
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Found:
    """What lies under a dataset's root, each list by key."""

    files: list[File]  # of the wanted suffixes
    tars: list[File]
    packed: list[File]  # compressed tars
    ignored: Counter[str]  # everything else; readers count on


def list_media(config: DatasetConfig, suffixes: frozenset[str]) -> tuple[list[File], Counter[str]]:
    """Files with one of `suffixes` under the root and in its tars, by key, and counts of what was left out.

    UserError as of `list_files`, for a tar that cannot be read, and where compressed tars are all there is.
    """
    found = find(config, suffixes)
    if found.packed and not found.files and not found.tars:
        raise packed_error(found.packed[0])
    found.ignored[PACKED] += len(found.packed)
    return with_members(config, found.files, found.tars, suffixes, found.ignored), +found.ignored


def find(config: DatasetConfig, suffixes: frozenset[str]) -> Found:
    """Files with one of `suffixes`, and tars, under the root; tars are not read yet. UserError as of `list_files`."""
    listed, ignored = list_files(config, suffixes | {TAR} | _PACKED_SUFFIXES)
    found = Found([], [], [], ignored)
    for file in listed:
        suffix = suffix_of(file.key)
        if suffix in suffixes:
            found.files.append(file)
        elif suffix == TAR:
            found.tars.append(file)
        elif _PACKED.search(file.key):
            found.packed.append(file)
        else:
            ignored[suffix] += 1
    return found


def with_members(
    config: DatasetConfig, files: Sequence[File], tars: Sequence[File], suffixes: frozenset[str], ignored: Counter[str]
) -> list[File]:
    """Files and the members of tars with one of `suffixes`, by key; of two with one key the file counts."""
    taken = {file.key: file for file in files}
    for member in members(config, tars, suffixes, ignored):
        if taken.setdefault(member.key, member) is not member:
            ignored["(another copy of a listed file)"] += 1
    return sorted(taken.values(), key=lambda file: file.key)


def members(
    config: DatasetConfig, tars: Sequence[File], suffixes: frozenset[str] | None, ignored: Counter[str]
) -> Iterator[File]:
    """The files in tars with one of `suffixes` (None: of any), tar by tar; the rest is counted in `ignored`.

    A member's key is its tar's key without `.tar`, then its name; `uri` is a part of the tar. Hidden ones are passed
    over, as in folders. UserError for a tar that cannot be read.
    """
    for _, found in tar_by_tar(config, tars, suffixes, ignored):
        yield from found


def tar_by_tar(
    config: DatasetConfig, tars: Sequence[File], suffixes: frozenset[str] | None, ignored: Counter[str]
) -> Iterator[tuple[File, Iterator[File]]]:
    """Each tar, in the given order, with its `members`."""
    for tar, index in zip(tars, _indices(config, tars), strict=True):
        ignored.update(index.ignored)
        yield tar, _members(tar, index, suffixes, ignored)


def _members(tar: File, index: Index, suffixes: frozenset[str] | None, ignored: Counter[str]) -> Iterator[File]:
    folder = tar.key[: -len(TAR)]
    for name, offset, size, mtime_s, head, head_hash in _lines(index):
        suffix = suffix_of(name)
        if any(map(is_passed_over, name.split("/"))):
            continue
        if suffixes is None or suffix in suffixes:
            uri = str(Part(offset, size, head, head_hash, tar.uri))
            yield File(f"{folder}/{name}", uri, size, max(0, mtime_s) * 1_000_000)
        else:
            ignored[suffix or "(no suffix)"] += 1


def _lines(index: Index) -> Iterator[tuple[Any, ...]]:
    """Its rows, of which some thousand are objects at one time."""
    for part in index.table.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from zip(*(column.to_pylist() for column in part.columns), strict=True)


def _indices(config: DatasetConfig, tars: Sequence[File]) -> Iterator[Index]:
    """The index of each tar, in order; UserError for one that cannot be read, or when all are compressed."""
    packed, console = 0, Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (tars and sys.stderr.isatty())) as progress:
        found = side_by_side(lambda tar, stop: _index(tar, config, stop), tars)
        for index in progress.track(found, total=len(tars), description="reading the headers of tars"):
            packed += PACKED in index.ignored
            yield index
    tar_cache.bound()
    if tars and packed == len(tars):
        raise packed_error(tars[0])


def side_by_side(act: Callable[[Item, Event], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`act(item, stop)` of each item, in order, several at a time; `stop` is set once nobody waits for more."""
    stop, left = Event(), iter(items)
    if len(items) < 2:
        yield from (act(item, stop) for item in items)
        return
    with ThreadPoolExecutor(TARS_AT_ONCE) as pool:
        ahead = deque(pool.submit(act, item, stop) for item in islice(left, 2 * TARS_AT_ONCE))
        try:
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(pool.submit(act, item, stop) for item in islice(left, 1))
                yield done
        finally:
            stop.set()
            for waiting in ahead:
                waiting.cancel()


def packed_error(tar: File) -> UserError:
    """Says which tar is compressed, and what to do."""
    tool = _UNPACKERS.get(tar.key.rsplit(".", 1)[-1].lower(), "gunzip")
    return UserError(
        f"{shown(tar.uri)}: a compressed tar cannot be read at random\n"
        f"unpack its compression first (`{tool}` leaves a .tar), or extract it"
    )


def _index(tar: File, config: DatasetConfig, stop: Event) -> Index:
    if tar.size == MISSING_SIZE:
        return Index(INDEX.empty_table(), Counter({"(tar that is not there)": 1}))
    try:
        return index_of(tar, stop)
    except (SourceError, TransientError) as error:
        raise UserError(
            f"{shown(tar.uri)}: cannot be read ({error})\n"
            f"put it right, or take it away from datasets.{config.name}.root"
        ) from error
