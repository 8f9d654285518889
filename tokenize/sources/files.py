"""The files under a folder or bucket prefix, by relative name: what every reader starts from.

Hidden files are passed over. Symbolic links are followed, real folders first, and each real folder is listed
once, so that circles end and a link into the tree adds nothing. What is neither wanted nor hidden is counted.
"""

import heapq
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from fsspec.core import url_to_fs

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.plain import counted
from toto.shards.store.retry import patiently
from toto.tokenize.input_file import local_path
from toto.tokenize.sources.base import MISSING_SIZE
from toto.tokenize.sources.names import escape, is_passed_over, is_text, shown, suffix_of


@dataclass(frozen=True, slots=True)
class File:
    """A file of one of the wanted suffixes."""

    key: str  # relative to the root, posix, valid UTF-8
    uri: str  # a local path (odd bytes are surrogates, as in `os`), or what fsspec opens
    size: int  # bytes; MISSING_SIZE for a link that leads nowhere
    mtime_us: int = 0
    etag: str = ""

    @property
    def parts(self) -> list[str]:
        """Folders and name."""
        return self.key.split("/")


def list_files(config: DatasetConfig, suffixes: frozenset[str]) -> tuple[list[File], Counter[str]]:
    """Files of the dataset's root with one of `suffixes`, by key, and counts of what was left out.

    UserError when the root is not there, is no folder, or may not be read.
    """
    ignored: Counter[str] = Counter()
    return sorted(each_file(config, suffixes, ignored), key=lambda file: file.key), ignored


def each_file(config: DatasetConfig, suffixes: frozenset[str], ignored: Counter[str]) -> Iterator[File]:
    """The same files one by one, in no order; what is left out is counted in `ignored`."""
    path = local_path(config.root)
    if path is None:
        return _remote_files(config, suffixes, ignored)
    _check_folder(config, path)
    return _local_files(path, suffixes, ignored)


def root_error(config: DatasetConfig, problem: str) -> UserError:
    """What is wrong with a dataset's root, where it is, and where people get the data."""
    where = f"datasets.{config.name}.root"
    advice = f"get it from {config.homepage}, then set" if config.homepage else "set"
    return UserError(f"{where}: {escape(shown(config.root))}: {problem}\n{advice} {where} to the right place")


def nothing_here(config: DatasetConfig, what: str, ignored: Counter[str]) -> UserError:
    """Of a root that holds nothing of a kind, but perhaps something else."""
    others = ignored.total()
    instead = counted(others, "other file") if others else "the folder is empty"
    return root_error(config, f"no {what} here ({instead})")


def _check_folder(config: DatasetConfig, path: str) -> None:
    try:
        os.scandir(path).close()
    except FileNotFoundError as error:
        raise root_error(config, "no such folder") from error
    except NotADirectoryError as error:
        raise root_error(config, "not a folder") from error
    except OSError as error:
        raise root_error(config, f"cannot be listed ({error.strerror})") from error


def _local_files(root: str, suffixes: frozenset[str], ignored: Counter[str]) -> Iterator[File]:
    seen: set[tuple[int, int]] = set()
    folders = [("", root)]
    links: list[tuple[str, str]] = []  # a heap: the order in which links are followed decides names
    while folders or links:
        prefix, folder = folders.pop() if folders else heapq.heappop(links)
        for entry in _entries(folder, seen, ignored):
            name = prefix + entry.name
            if not _is_folder(entry):
                yield from _local_file(name, entry, suffixes, ignored)
            elif entry.is_symlink():
                heapq.heappush(links, (f"{name}/", entry.path))
            else:
                folders.append((f"{name}/", entry.path))


def _entries(folder: str, seen: set[tuple[int, int]], ignored: Counter[str]) -> list[os.DirEntry[str]]:
    try:
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not is_passed_over(entry.name)]
    except OSError:
        ignored["(folder that cannot be listed)"] += 1
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _local_file(name: str, entry: os.DirEntry[str], suffixes: frozenset[str], ignored: Counter[str]) -> Iterator[File]:
    if not _is_wanted(entry.name, suffixes, ignored):
        return
    try:
        status = entry.stat()
    except OSError:  # a link that leads nowhere: named, so that it ends in quarantine instead of vanishing
        yield File(escape(name), entry.path, MISSING_SIZE)
        return
    if stat.S_ISREG(status.st_mode):
        yield File(escape(name), entry.path, status.st_size, status.st_mtime_ns // 1000)
    else:
        ignored["(not a regular file)"] += 1


def _remote_files(config: DatasetConfig, suffixes: frozenset[str], ignored: Counter[str]) -> Iterator[File]:
    fs, root, found = _find(config)
    for path, info in found.items():
        name = path.removeprefix(root)
        parts = (unquote(name) if root.startswith("http") else name).split("/")  # web servers list names as links
        if not path.startswith(root) or not {"", ".", ".."}.isdisjoint(parts) or not is_text(path):
            ignored["(unsafe name)"] += 1
        elif not any(map(is_passed_over, parts)) and _is_wanted(parts[-1], suffixes, ignored):
            uri = fs.unstrip_protocol(path)
            yield File("/".join(parts), uri, int(info.get("size") or 0), _mtime_us(info), _etag(info))


def _find(config: DatasetConfig) -> tuple[Any, str, dict[str, dict[str, Any]]]:
    try:
        fs, root = url_to_fs(config.root, use_listings_cache=False)
        found = patiently(lambda: fs.find(root, detail=True), escape(shown(config.root)))
    except FileNotFoundError as error:
        raise root_error(config, "no such folder") from error
    except Exception as error:  # every store has its own: credentials, network, package not installed
        raise root_error(config, f"cannot be listed ({_one_line(error)})") from error
    if not found:
        raise root_error(config, "no such folder, or an empty one")
    if set(found) == {root}:
        raise root_error(config, "not a folder")
    return fs, root.rstrip("/") + "/", found


def _is_wanted(name: str, suffixes: frozenset[str], ignored: Counter[str]) -> bool:
    suffix = suffix_of(name)
    if suffix not in suffixes:
        ignored[escape(suffix) or "(no suffix)"] += 1
    return suffix in suffixes


def _mtime_us(info: dict[str, Any]) -> int:
    names = ("LastModified", "last_modified", "mtime", "created")
    stamp = next((info[name] for name in names if info.get(name)), 0)
    seconds = stamp.timestamp() if isinstance(stamp, datetime) else stamp
    return int(seconds * 1e6) if isinstance(seconds, int | float) else 0


def _etag(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or info.get("etag") or "").strip('"')


def _one_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0])[:200]
