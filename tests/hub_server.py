"""A stand-in for the Hugging Face Hub on this machine: what huggingface_hub's file system asks of it for datasets.

    GET  /api/datasets/<id>/revision/<rev>         the commit that a branch is at
    GET  /api/datasets/<id>/tree/<rev>/<folder>    files and folders
    POST /api/datasets/<id>/paths-info/<rev>       the same of single names
    GET  /datasets/<id>/resolve/<rev>/<file>       bytes, also parts of them
    POST /api/datasets/<id>/preupload/<rev>        how files are to come: inside the commit, never by LFS or Xet
    POST /api/datasets/<id>/commit/<rev>           files to write and to remove
    POST /api/validate-yaml                        whether the front matter of a README.md is one: yes

The repository `somebody/<folder>` is the folder below `root`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0de"
API = re.compile(r"/api/datasets/somebody/([^/]+)(?:/(revision|tree|paths-info|preupload|commit)/([^/]+)(?:/(.*))?)?")
FILE = re.compile(r"/datasets/somebody/([^/]+)/resolve/[^/]+/(.+)")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, root: Path, asked: list[str], *socket: Any) -> None:
        self._root, self._asked = root, asked
        super().__init__(*socket)

    def do_GET(self) -> None:
        """Facts of a repository, a listing, or bytes."""
        url = urlsplit(self.path)
        path = unquote(url.path)
        self._asked.append(f"{self.command} {path}")
        if found := FILE.fullmatch(path):
            self._file(self._root / found[1] / found[2])
        elif (found := API.fullmatch(path)) and (self._root / found[1]).is_dir():
            repository = self._root / found[1]
            if found[2] != "tree":
                return self._json({"id": f"somebody/{found[1]}", "sha": COMMIT, "siblings": []})
            folder = repository / (found[4] or "")
            if not folder.is_dir():
                return self._gone("EntryNotFound")
            every = parse_qs(url.query).get("recursive") == ["true"]
            self._json([_entry(repository, p) for p in sorted(folder.rglob("*") if every else folder.iterdir())])
        else:
            self._gone("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Facts of single names, or a commit."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._asked.append(f"POST {unquote(self.path)}")
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        found = API.fullmatch(unquote(self.path))
        repository, what = self._root / (found[1] if found else ""), found[2] if found else ""
        if what == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return self._json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        if what == "commit":
            for line in map(json.loads, body.splitlines()):
                _commit(repository, line["key"], line["value"])
            url = f"http://{self.headers['Host']}/datasets/somebody/{repository.name}/commit/{COMMIT}"
            return self._json({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        paths = [repository / name for name in parse_qs(body).get("paths", [])]
        self._json([_entry(repository, path) for path in paths if path.exists()])

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _file(self, path: Path) -> None:
        if not path.is_file():
            return self._gone("EntryNotFound")
        data, size = path.read_bytes(), path.stat().st_size
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"ETag": f'"{_oid(path)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if part:
            first, last = int(part[1]), min(int(part[2] or size), size - 1)
            data = data[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        self._answer(206 if part else 200, data, headers)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _gone(self, code: str) -> None:
        self._answer(404, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _commit(repository: Path, key: str, value: dict[str, Any]) -> None:
    path = repository / value.get("path", "")
    if key == "file":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(value["content"]))
    elif key == "deletedFile":
        path.unlink()


def _entry(repository: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(repository).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": name, "oid": _oid(path), "size": path.stat().st_size}


def _oid(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def hub_server(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Its address, and what it was asked, while the context lasts."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, root, asked))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
