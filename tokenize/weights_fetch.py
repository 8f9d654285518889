"""One download: a URI into a file, going on with what is there, hashed while it streams.

Beside the unfinished file stands the version that it is the beginning of; another version starts over. A way that
breaks is tried again after a pause, and as often as it gets on.
"""

import hashlib
import os
import shutil
import sys
import time
from pathlib import Path

from toto.errors import UserError, naming
from toto.tokenize.sources.names import shown
from toto.tokenize.weights_stream import Cut, Gone, open_stream

MAX_BYTES = 16 * 2**30  # the largest of ours has 1 GB
PAUSES_S = (0.5, 2.0, 8.0)  # between tries of a download that does not get on
PIECE = 1 << 20


def download(uri: str, partial: Path) -> str:
    """Streams a URI into a file, going on with what is there; returns its sha256."""
    pauses = list(PAUSES_S)
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            return _stream(uri, partial)
        except Gone as gone:
            raise UserError(
                f"{shown(uri)}: cannot be fetched ({gone}); fetch it by hand "
                f"and name its path in tokenizers: of pipelines.yaml"
            ) from None
        except Cut as cut:
            moved_on = partial.exists() and partial.stat().st_size > before
            if not moved_on and not pauses:
                raise UserError(
                    f"{shown(uri)}: cannot be fetched ({cut}); run again, it goes on, or fetch it by hand "
                    f"and name its path in tokenizers: of pipelines.yaml"
                ) from None
            time.sleep(PAUSES_S[0] if moved_on else pauses.pop(0))


def _stream(uri: str, partial: Path) -> str:
    version = partial.with_name(".partial-version")  # of the file that the partial one is the beginning of
    have = partial.stat().st_size if partial.exists() and version.exists() else 0
    beginning_of = version.read_text() if have else ""
    digest = hashlib.sha256()
    with open_stream(uri, have, beginning_of) as stream, naming(partial):
        if stream.start and stream.version != beginning_of:
            partial.unlink()
            raise Cut("the file changed while it was fetched")
        version.write_text(stream.version)
        total = stream.total
        if total is not None:
            _refuse_size(uri, total, partial)
        with open(partial, "r+b" if stream.start else "wb") as file:
            for piece in iter(lambda: file.read(PIECE), b"") if stream.start else ():
                digest.update(piece)
            size = file.tell()
            for piece in stream.pieces:
                size += len(piece)
                if size > (MAX_BYTES if total is None else total):
                    raise UserError(f"{shown(uri)}: sends more than it said; these are no weights")
                file.write(piece)
                digest.update(piece)
                _show(f"\r\x1b[K{partial.parent.name}: {size / 1e6:,.0f} of {(total or 0) / 1e6:,.0f} MB")
            file.flush()
            os.fsync(file.fileno())
        _show("\n")
        if total is not None and size < total:
            raise Cut(f"the connection ended after {size:,} of {total:,} bytes")
        if not size:
            raise Gone("it is empty")
    version.unlink()
    return digest.hexdigest()


def _refuse_size(uri: str, total: int, partial: Path) -> None:
    """Before the first byte: more than any weights have, or than the disk has room for."""
    if total > MAX_BYTES:
        raise UserError(f"{shown(uri)}: {total:,} bytes are more than weights can have ({MAX_BYTES:,})")
    missing = total - (partial.stat().st_size if partial.exists() else 0)
    free = shutil.disk_usage(partial.parent).free
    if missing > free:
        raise UserError(
            f"{partial.parent}: {missing:,} bytes to fetch, {free:,} free; free some space, or set XDG_CACHE_HOME"
        )


def _show(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()
