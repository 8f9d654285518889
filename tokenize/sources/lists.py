"""A dataset's own lists (CSV, JSON, text): where they are, and what is in them. Local or through fsspec, bounded."""

import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.clip import SourceError
from toto.tokenize.input_file import local_path, open_binary
from toto.tokenize.part import parse_part
from toto.tokenize.sources.listed import lists_error
from toto.tokenize.sources.names import is_passed_over, shown, suffix_of
from toto.tokenize.transient import TransientError

MAX_LIST_BYTES = 256 * 2**20  # Kinetics-700's largest has 25 MB


def find_lists(config: DatasetConfig, suffixes: Sequence[str], folders: Sequence[str] = ()) -> list[str]:
    """Uris of files with one of `suffixes` in `annotations`, else in the root's annotations/ and the root.

    `annotations` may also name one file. `folders` are names of further folders, looked for in those. Folders in that
    order, names sorted; UserError when `annotations` is set and not there.
    """
    if config.annotations is not None:
        place = config.annotations.rstrip("/")
        try:
            found = _lists_in(place, suffixes)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise lists_error(config, "no such file or folder") from error
        places = [place]
    else:
        found = []
        places = [f"{config.root.rstrip('/')}/annotations", config.root.rstrip("/")]
        folders = ["", *folders]
    inner = [f"{place}/{folder}".rstrip("/") for folder in folders for place in places]
    for folder in inner:
        with suppress(FileNotFoundError, NotADirectoryError):
            found += _lists_in(folder, suffixes)
    return found


def read_lines(uri: str) -> list[str]:
    """The lines of a UTF-8 text file, without line ends; UserError when it cannot be read as one."""
    data = read_within(uri, MAX_LIST_BYTES)
    if data is None:
        raise _too_large(uri)
    try:
        return io.StringIO(str(data, "utf-8-sig"), newline=None).read().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{shown(uri)}: not UTF-8 text (byte {error.start}); convert it first") from error


def read_json(uri: str, limit: int = MAX_LIST_BYTES) -> Any:
    """What a JSON file of at most `limit` bytes holds; UserError when it cannot be read as one."""
    data = read_within(uri, limit)
    if data is None:
        raise _too_large(uri, limit)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(uri)}: not JSON ({error}); get the file again") from error


def read_within(uri: str, limit: int) -> bytes | None:
    """A file's bytes; None when they are more than `limit`. UserError when it cannot be read."""
    try:
        with _open(uri) as file:
            data: bytes = file.read(limit + 1)
    except (SourceError, TransientError) as error:
        raise UserError(f"{shown(uri)}: cannot be read ({error})") from error
    except OSError as error:
        raise UserError(f"{shown(uri)}: cannot be read ({error.strerror or error})") from error
    return data if len(data) <= limit else None


def _too_large(uri: str, limit: int = MAX_LIST_BYTES) -> UserError:
    return UserError(f"{shown(uri)}: larger than {limit // 2**20} MiB, so no list of a dataset")


def _open(uri: str) -> Any:
    path = local_path(uri)
    if path is None:
        return open_binary(uri) if parse_part(uri) else fsspec.open(uri, "rb")
    return open(path, "rb")


def _lists_in(place: str, suffixes: Sequence[str]) -> list[str]:
    """The lists directly in a folder, or the file itself."""
    names = {uri: uri.rsplit("/", 1)[-1] for uri in _children(place)}
    return sorted(u for u, name in names.items() if suffix_of(name) in suffixes and not is_passed_over(name))


def _children(place: str) -> list[str]:
    path = local_path(place)
    if path is None:
        fs, remote = url_to_fs(place)
        return [fs.unstrip_protocol(name) for name in fs.ls(remote, detail=False)]
    if os.path.isfile(path):
        return [path]
    with os.scandir(path) as entries:
        return [entry.path for entry in entries if entry.is_file()]
