"""fsspec's file system behind a URI, and what every request to it has in common: its place, patience, ways of reading.

A forked process, as loaders of training data are, makes its own connections. What passes is tried again (retry.py).
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from toto.shards.store.names import inside
from toto.shards.store.retry import patiently

T = TypeVar("T")
CONNECT_S, SILENT_S = 30, 60  # how long a web server may take to answer at all, and stay silent in an answer


class Connection:
    """What lies under an fsspec URI, for this process."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        self._connect()

    @property
    def fs(self) -> Any:
        """fsspec's file system."""
        if self._process != os.getpid():
            self._connect()
        return self._fs

    def path(self, name: str) -> str:
        """What fsspec's file system calls a file; UserError for a name that leads out of here."""
        return f"{self._prefix}/{inside(name)}"

    def place(self, name: str) -> str:
        """The same, or all that lies here where `name` is empty."""
        return self.path(name) if name else self._prefix

    def patiently(self, name: str, act: Callable[[], T]) -> T:
        """What `act` returns, tried again while failing may pass; UserError where the store refuses or stays away."""
        return patiently(act, f"{self.uri}/{name}".rstrip("/"))

    @property
    def on_s3(self) -> bool:
        """Whether the store speaks S3."""
        protocol = self.fs.protocol
        return "s3" in ((protocol,) if isinstance(protocol, str) else protocol)

    @property
    def on_web(self) -> bool:
        """Whether it is a web server."""
        return self.uri.startswith(("http://", "https://"))

    @property
    def at_once(self) -> dict[str, Any]:
        """How a small file is read: in one request, where s3fs would ask for its size first."""
        return {"max_concurrency": 1} if self.on_s3 else {}

    @property
    def exactly(self) -> dict[str, Any]:
        """How a part of a file is read: as it is, where huggingface_hub would read 5 MB."""
        return {"cache_type": "none"} if self.uri.startswith("hf://") else {}

    @property
    def streamed(self) -> dict[str, Any]:
        """How a file is opened that is read once, from its beginning: many web servers give no parts of a file."""
        return {"block_size": 0} if self.on_web else {}

    def _connect(self) -> None:
        self._fs, self._prefix = url_to_fs(self.uri, use_listings_cache=False, **self._patience())
        self._process = os.getpid()

    def _patience(self) -> dict[str, Any]:
        """A web server may take as long as it likes while bytes arrive; aiohttp would give any answer five minutes."""
        if not self.on_web:
            return {}
        import aiohttp

        return {"client_kwargs": {"timeout": aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=SILENT_S)}}
