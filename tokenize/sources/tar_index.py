"""What lies in one tar, tars in it included, as a table. Headers are read once: tar_cache keeps the table.

    a tar ─▶ headers ─▶ files, and for each inner tar its headers ─▶ name, offset, size, mtime_s, head, head_hash

Names are relative, posix and valid UTF-8; a file of an inner tar `n01440764.tar` is `n01440764/<its name>`. Of two
files of one name the last counts, as when a tar is extracted.
"""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

import pyarrow as pa

from toto.tokenize.input_file import local_path
from toto.tokenize.ranges import Ranges
from toto.tokenize.sources.files import File
from toto.tokenize.sources.names import escape, suffix_of
from toto.tokenize.sources.tar_cache import cached
from toto.tokenize.sources.tar_headers import Entry, tar_entries

TAR = ".tar"
PACKED = "(compressed tar)"
_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstd, whatever the name says
INDEX = pa.schema(
    [
        ("name", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("mtime_s", pa.int64()),
        ("head", pa.int32()),
        ("head_hash", pa.string()),
    ]
)
THREADS = 32  # for the tars in a store's tar: it answers many at once
_IGNORED = b"ignored"


@dataclass(frozen=True, slots=True)
class Index:
    """The files of a tar, and what else was in it: reason -> count."""

    table: pa.Table  # INDEX
    ignored: Counter[str]


class Stopped(Exception):
    """Nobody waits for the index any more."""


def index_of(tar: File, stop: Event) -> Index:
    """The index of a tar, from the cache when it is the tar that was read before.

    Raises SourceError or TransientError when it cannot be read, Stopped once `stop` is set; what is damaged is counted.
    """
    table = cached(tar, "index", lambda: _to_table(_read(tar, stop)))
    return Index(table.replace_schema_metadata(), Counter(json.loads(table.schema.metadata[_IGNORED])))


def _to_table(index: Index) -> pa.Table:
    return index.table.replace_schema_metadata({_IGNORED: json.dumps(index.ignored)})


def _read(file: File, stop: Event) -> Index:
    if _is_packed(file):
        return Index(INDEX.empty_table(), Counter({PACKED: 1}))
    ignored: Counter[str] = Counter()
    entries = _listed(file.uri, 0, file.size, ignored, stop)
    inner = {name[: -len(TAR)]: name for name in entries if suffix_of(name) == TAR}
    tars = [(folder, entries.pop(name)) for folder, name in inner.items()]
    tables = [_table("", entries)]

    def read_inner(tar: tuple[str, Entry]) -> tuple[pa.Table, Counter[str]]:
        return _read_inner(file.uri, *tar, stop)

    with ThreadPoolExecutor(THREADS) as pool:
        for table, counts in (map if local_path(file.uri) else pool.map)(read_inner, tars):
            tables.append(table)
            ignored += counts
    return Index(pa.concat_tables(tables), ignored)


def _is_packed(file: File) -> bool:
    with Ranges(file.uri, file.size) as ranges:
        return ranges.read(0, 6).startswith(_MAGIC)


def _read_inner(uri: str, folder: str, tar: Entry, stop: Event) -> tuple[pa.Table, Counter[str]]:
    ignored: Counter[str] = Counter()
    entries = _listed(uri, tar.offset, tar.offset + tar.size, ignored, stop)
    return _table(f"{folder}/", entries), ignored


def _listed(uri: str, start: int, end: int, ignored: Counter[str], stop: Event) -> dict[str, Entry]:
    """Files by safe name; the last of each name."""
    entries: dict[str, Entry] = {}
    with Ranges(uri, end) as ranges:
        for entry in tar_entries(ranges.read, start, end, ignored):
            if stop.is_set():
                raise Stopped
            name = safe_name(entry.name)
            if name is None:
                ignored["(unsafe name)"] += 1
                continue
            if name in entries:
                ignored["(earlier copy of a file in a tar)"] += 1
            entries[name] = entry
    return entries


def safe_name(name: str) -> str | None:
    """A name in a tar as the end of a key; None for one that leads elsewhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        return None
    return escape("/".join(parts))


def _table(prefix: str, entries: dict[str, Entry]) -> pa.Table:
    rows = [[prefix + name for name in entries]]
    rows += [[getattr(entry, column) for entry in entries.values()] for column in INDEX.names[1:]]
    return pa.table(rows, INDEX)
