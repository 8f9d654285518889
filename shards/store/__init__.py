"""Where a dataset lives: a folder, or a bucket prefix through fsspec. Files appear whole or not at all.

Everything that decides something is created exclusively (`create`): of two writers, one wins. Locally that is
`os.link` of a finished temporary file (local.py); on an object store a put that fails when the name is taken
(remote.py, with connection.py, remote_reads.py, retry.py and copies.py).
"""

import uuid
from pathlib import Path

from toto.errors import UsageError, UserError
from toto.shards.store.local import LocalStore
from toto.shards.store.names import SCRATCH, inside
from toto.shards.store.remote import RemoteStore
from toto.shards.store.retry import told
from toto.uris import refuse_secrets

__all__ = ["SCRATCH", "LocalStore", "RemoteStore", "Store", "inside", "is_exclusive", "open_store"]

Store = LocalStore | RemoteStore


def open_store(uri: str | Path) -> Store:
    """The store behind a path or an fsspec URI; nothing is read or written yet. UsageError, UserError."""
    text = str(uri)
    if "://" not in text:
        return LocalStore(Path(text).expanduser().absolute())
    if text.startswith("file://"):
        return LocalStore(Path(text.removeprefix("file://")).absolute())
    refuse_secrets(text, "a dataset")
    if not text.partition("://")[2].strip("/"):
        raise UsageError(f"{text} names no place; give one such as {text.partition('://')[0]}://bucket/folder")
    try:
        return RemoteStore(text)
    except (ImportError, ValueError, OSError) as error:  # the last: a file system that connects as it is made
        raise UserError(f"cannot open {text}: {told(error)}") from None


def is_exclusive(store: Store) -> bool:
    """Whether creating one name twice fails the second time, on which commits stand; UserError when neither works."""
    name = f"{SCRATCH}/probe-{uuid.uuid4().hex[:12]}"
    try:
        first, second = store.create_twice(name)
    except FileNotFoundError as error:  # creating makes folders; it is the bucket that is not there
        if isinstance(store, LocalStore):
            raise UserError(f"{store.uri}: no folder can be made there; choose another --out") from error
        raise UserError(f"{store.uri}: no such bucket; create it, or correct its name") from None
    store.remove(name)
    if not first:
        raise UserError(f"{store.uri}: a file just written holds something else; choose another --out")
    return not second
