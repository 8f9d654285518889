"""Bytes of a file far away, from any offset on: HTTP by range requests, every other URI through fsspec.

Where the file has another version by now, all of it comes, or its new version shows that the beginning is of no use;
the version is its ETag, its time stamp, or its length.
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from toto import __version__

TIMEOUT_S = 60.0
PIECE = 1 << 20
PERMANENT = (400, 401, 403, 404, 405, 410, 451)  # HTTP: asking again changes nothing
BROKEN_WAY = (urllib.error.URLError, http.client.HTTPException, OSError)


class Cut(Exception):
    """The way to the file failed; what was received stays."""


class Gone(Exception):
    """There is no such file, or it is not for us."""


@dataclass(frozen=True)
class Stream:
    """An open file far away."""

    start: int  # offset of the first byte that comes
    total: int | None  # bytes of the whole file
    version: str
    pieces: Iterator[bytes]


@contextmanager
def open_stream(uri: str, start: int, version: str) -> Iterator[Stream]:
    """The bytes from `start` on, or all of them; Cut when the way fails, Gone when there is nothing at its end."""
    over_http = uri.startswith(("http://", "https://"))
    with ExitStack() as stack:
        yield _over_http(stack, uri, start, version) if over_http else _by_fsspec(stack, uri, start, version)


def _over_http(stack: ExitStack, uri: str, start: int, version: str) -> Stream:
    headers = {"User-Agent": f"toto-video/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if not version.startswith(("W/", "length ")):  # weak ETags do not promise the same bytes
            headers["If-Range"] = version
    try:
        response = stack.enter_context(
            urllib.request.urlopen(urllib.request.Request(uri, headers=headers), timeout=TIMEOUT_S)
        )
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left: it was whole, but for its name
            return Stream(start, start, version, iter(()))
        problem = f"HTTP {error.code} {error.reason}"
        raise (Gone if error.code in PERMANENT else Cut)(problem) from None
    except BROKEN_WAY as error:
        raise Cut(_reason(error)) from None
    begin = start if response.status == 206 else 0
    length = response.headers.get("Content-Length", "")
    total = begin + int(length) if length.isdigit() else None
    found = response.headers.get("ETag") or response.headers.get("Last-Modified") or f"length {total}"
    return Stream(begin, total, found, _pieces(response))


def _by_fsspec(stack: ExitStack, uri: str, start: int, version: str) -> Stream:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(uri)
        facts = fs.info(path)
        found = str(facts.get("ETag") or facts.get("mtime") or f"length {facts['size']}")
        file = stack.enter_context(fs.open(path, "rb"))
        begin = start if found == version else 0
        file.seek(begin)
    except FileNotFoundError:
        raise Gone("no such file") from None
    except (ImportError, ValueError) as error:
        raise Gone(str(error)) from None
    except OSError as error:
        raise Cut(_reason(error)) from None
    return Stream(begin, facts["size"], found, _pieces(file))


def _pieces(file: Any) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except BROKEN_WAY as error:
        raise Cut(_reason(error)) from None


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
