"""Bytes of a file far away, from any offset on: HTTP by range requests, every other URI through fsspec.

The rest of a file is taken only where its version promises the same bytes (a strong ETag, a time stamp) and the answer
says that it begins where it was asked to; else all of it comes again. What is packed on the way, or of no known end, is
refused.
"""

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from toto import __version__
from toto.shards.store.retry import patiently, told
from toto.uris import shown

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
    """From the start on, unless the answer is certainly the rest of the same file."""
    headers = {"User-Agent": f"toto-video/{__version__}", "Accept-Encoding": "identity"}
    if start and _is_strong(version):
        response = _answer(stack, uri, {**headers, "Range": f"bytes={start}-", "If-Range": version})
        begins, total = _content_range(response)
        if response.status == 200 or (begins == start and total is not None):
            return _stream(response, 0 if response.status == 200 else start, total)
    return _stream(_answer(stack, uri, headers), 0, None)


def _answer(stack: ExitStack, uri: str, headers: dict[str, str]) -> Any:
    """The response, a 416 (there is no such range) too; Cut when asking again may help, Gone when it does not."""
    request = urllib.request.Request(uri, headers=headers)
    try:
        return stack.enter_context(urllib.request.urlopen(request, timeout=TIMEOUT_S))
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:
            return error
        problem = f"HTTP {error.code} {error.reason}"
        raise (Gone if error.code in PERMANENT else Cut)(problem) from None
    except BROKEN_WAY as error:
        raise Cut(_reason(error)) from None


def _stream(response: Any, start: int, total: int | None) -> Stream:
    encoding, length = response.headers.get("Content-Encoding", "identity"), response.headers.get("Content-Length", "")
    if encoding != "identity":
        raise Gone(f"the server sends it packed as {encoding[:20]}")
    if not length.isdigit() and not response.chunked:
        raise Gone("the server does not say how long it is")
    if start == 0:
        total = int(length) if length.isdigit() else None
    found = response.headers.get("ETag") or response.headers.get("Last-Modified") or f"length {total}"
    return Stream(start, total, found, _pieces(response))


def _content_range(response: Any) -> tuple[int | None, int | None]:
    """First byte and length of the whole file, as a 206 states them."""
    stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
    return (int(stated[1]), int(stated[2])) if stated and response.status == 206 else (None, None)


def _is_strong(version: str) -> bool:
    """Whether the same version promises the same bytes; a weak ETag or a length alone does not."""
    return bool(version) and not version.startswith(("W/", "length "))


def _by_fsspec(stack: ExitStack, uri: str, start: int, version: str) -> Stream:
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise Gone(told(error)) from None
    try:
        facts = patiently(lambda: fs.info(path), shown(uri))
        file = stack.enter_context(patiently(lambda: fs.open(path, "rb"), shown(uri)))
    except FileNotFoundError:
        raise Gone("no such file") from None
    found = str(facts.get("ETag") or facts.get("mtime") or f"length {facts['size']}")
    begin = start if found == version and _is_strong(version) else 0
    file.seek(begin)
    return Stream(begin, facts["size"], found, _pieces(file))


def _pieces(file: Any) -> Iterator[bytes]:
    try:
        while piece := file.read(PIECE):
            yield piece
    except Exception as error:  # stores have errors of their own; the next try tells which of them last
        raise Cut(_reason(error)) from None


def _reason(error: BaseException) -> str:
    return shown(str(getattr(error, "reason", error))) or type(error).__name__
