"""Files of weights: fetched once into the user's cache, and the same bytes ever after.

    weights: a path or URI ─▶ cache/weights/<hash of it>/<name> (paths stay where they are) ─▶ sha256 ─▶ the record

A download goes on where it was cut off, is hashed while it streams, and gets its name when it is whole. The first use
of a file records its sha256 in the cache (and in the plan, through the tokenizer's spec); other bytes under the same
name are refused afterwards, as they are when `weights_sha256` in pipelines.yaml says otherwise.
"""

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toto.errors import UserError, naming
from toto.files import cache_folder, write_whole
from toto.shards.hashing import file_sha256
from toto.tokenize.sources.names import shown
from toto.tokenize.weights_fetch import download


@dataclass(frozen=True)
class Weights:
    """One file of weights, on this machine, with the hash that it had when it was last looked at."""

    uri: str
    path: Path
    sha256: str
    size: int


def obtain(uri: str, sha256: str | None = None) -> Weights:
    """The file behind a path or URI, fetched when it is not here yet; UserError when it is not the one it was."""
    folder = folder_of(uri)
    with locked(folder):
        path = local_path(uri) or _fetched(uri, folder, sha256)
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no file but a device or a pipe"
            raise UserError(f"{path}: {what}, where a file of weights is wanted; name the file in tokenizers:")
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(
                f"{path}: no such file of weights; fetch it there, or name another in tokenizers:"
            ) from None
        record = _read_record(folder)
        seen = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        unchanged = record is not None and all(record.get(key) == value for key, value in seen.items())
        found = record["sha256"] if unchanged and record else file_sha256(path)
        _refuse_other(uri, path, found, sha256, record["sha256"] if record else None)
        if not unchanged:
            write_whole(folder / "record.json", json.dumps({"uri": uri, "sha256": found, **seen}).encode())
        return Weights(uri, path, found, stat.st_size)


@contextmanager
def forgotten_if_wrong(uri: str) -> Iterator[None]:
    """A fetched file that turns out to be no weights, such as a web page that asks to sign in, does not stay."""
    try:
        yield
    except UserError:
        if local_path(uri) is None:
            folder = folder_of(uri)
            for path in (folder / "record.json", folder / name_of(uri)):
                path.unlink(missing_ok=True)
        raise


def known(uri: str) -> Weights | None:
    """What is here of a file of weights, by its record; None when it was never used. Nothing is fetched or hashed."""
    folder = folder_of(uri)
    record, path = _read_record(folder), local_path(uri) or folder / name_of(uri)
    if record is None or not path.is_file():
        return None
    return Weights(uri, path, record["sha256"], record["size"])


def recorded_sha256(uri: str) -> str | None:
    """The hash of a file that was used before, though it may be gone; None for a path that is there: bytes count."""
    path = local_path(uri)
    record = _read_record(folder_of(uri)) if path is None or not path.exists() else None
    return record["sha256"] if record else None


def cache() -> Path:
    """Where fetched and converted weights are kept."""
    return cache_folder() / "weights"


def folder_of(uri: str) -> Path:
    """The folder of one file's record in the cache, and of the file where it was fetched."""
    path = local_path(uri)
    return cache() / hashlib.sha256(str(path or uri).encode()).hexdigest()[:16]


def local_path(uri: str) -> Path | None:
    """The absolute path of a file on this machine; None for a URI."""
    if "://" in uri and not uri.startswith("file://"):
        return None
    return Path(uri.removeprefix("file://")).expanduser().absolute()


def name_of(uri: str) -> str:
    """What a fetched file is called: the last part of its path, a plain name."""
    last = uri.split("?")[0].rstrip("/").rsplit("/", 1)[-1]
    plain = "".join(c for c in last if c.isalnum() or c in "._-").lstrip(".")
    return "weights" if plain in ("", "record.json") else plain[:80]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Held by one process at a time; given back by the system when the process dies."""
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _fetched(uri: str, folder: Path, sha256: str | None) -> Path:
    target = folder / name_of(uri)
    if not target.is_file():
        partial = folder / ".partial"
        sys.stderr.write(f"fetching {shown(uri)} to {folder}\n")
        found = download(uri, partial)
        if sha256 not in (None, found):
            partial.unlink()
            raise UserError(other_bytes(uri, found, sha256))
        os.replace(partial, target)
    return target


def _refuse_other(uri: str, path: Path, found: str, wanted: str | None, before: str | None) -> None:
    if wanted is not None:
        if found != wanted:
            raise UserError(other_bytes(uri, found, wanted))
    elif before not in (None, found):
        raise UserError(
            f"{path} has changed: its sha256 was {before[:16] if before else ''}… at the first use, now it is {found}; "
            f"{if_changed(uri)}"
        )


def if_changed(uri: str) -> str:
    """What to do about a file that has not the hash any more that was recorded at its first use."""
    pin = "if that is right, give weights_sha256 (or decoder_sha256) in pipelines.yaml"
    if local_path(uri) is None:
        return f"{pin}; if not, remove {folder_of(uri)} to fetch it again"
    return f"{pin}, or remove {folder_of(uri)}, where the first is recorded"


def other_bytes(uri: str, found: str, wanted: str | None) -> str:
    """What is wrong with a file that has not the hash that pipelines.yaml gives, and what to do."""
    again = f"; remove {folder_of(uri)} to fetch it again" if local_path(uri) is None else ""
    return (
        f"{shown(uri)}: its sha256 is {found}, not {wanted}; these are other weights, or a damaged copy{again}\n"
        f"if they are meant, set weights_sha256 (or decoder_sha256) of the tokenizer's entry in pipelines.yaml"
    )


def _read_record(folder: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((folder / "record.json").read_bytes())
        return record if isinstance(record["sha256"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
