"""A proxy between a client and a store that fails as stores do, by a seeded schedule, or once where a test says so.

    500, 503        an error instead of an answer; the store never saw the request (403, 409: where a test says so)
    500_after       the store did what was asked, and the client is told of an error
    reset           the connection breaks before the store saw the request
    reset_after     the store did what was asked, and the connection breaks instead of an answer
    cut             half of the answer's body, then the connection breaks
    delay           the answer comes late
    held            no answer, until the test sets `go_on` or ends; the store never sees the request

Requests that no rule names pass untouched, and so does one whose last two met a fault: who tries on gets through. It
runs in threads of the test's process.
"""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("500", "503", "500_after", "reset", "reset_after", "cut", "delay")
DELAY_S = 0.2
IN_A_ROW = 2  # faults of one request, by the schedule
PATIENCE_S = 200
ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>an upload that a test made up</Message></Error>"
CODES = {
    403: "AccessDenied",
    404: "NoSuchUpload",
    409: "ConditionalRequestConflict",
    500: "InternalError",
    503: "SlowDown",
}


class FaultProxy(ThreadingHTTPServer):
    """Forwards to `upstream`; `share` of the requests meet a fault, `once` holds those that must meet a certain one."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a connection that finds no room tries again after a second

    def __init__(self, upstream: str, share: float, seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.share = share
        self.once: list[tuple[str, str, str]] = []  # (method, part of the path, fault), each for one request
        self.met: Counter[str] = Counter()  # fault -> how often
        self.requests: list[tuple[str, str]] = []  # (method, path)
        self.careless = False  # forgets the conditions of conditional puts, as some stores that speak S3 do
        self.go_on = threading.Event()  # ends requests that are held
        self._in_a_row: Counter[tuple[str, str]] = Counter()  # faults by the schedule: (method, path) -> how many
        self._random, self._lock = random.Random(seed), threading.Lock()

    def fault(self, method: str, path: str) -> str | None:
        """What happens to the next request."""
        with self._lock:
            self.requests.append((method, path))
            chosen = next((rule for rule in self.once if rule[0] == method and rule[1] in path), None)
            if chosen:
                self.once.remove(chosen)
                fault: str | None = chosen[2]
            else:
                fault = self._scheduled(method, path)
            if fault:
                self.met[fault] += 1
            return fault

    def _scheduled(self, method: str, path: str) -> str | None:
        fault = self._random.choice(FAULTS) if self._random.random() < self.share else None
        if fault is None or self._in_a_row[method, path] == IN_A_ROW:
            del self._in_a_row[method, path]
            return None
        self._in_a_row[method, path] += 1
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is nothing to tell."""


@contextmanager
def fault_proxy(upstream: str, share: float = 0.0, seed: int = 0) -> Iterator[FaultProxy]:
    """A proxy in front of `upstream` ("http://host:port") while the context lasts."""
    proxy = FaultProxy(upstream, share, seed)
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE_S

    def handle_one(self) -> None:
        """Any method."""
        fault = self.server.fault(self.command, self.path)
        body = self._body()
        self.close_connection = True
        if fault == "reset":
            return self._reset()
        if fault and fault.isdigit():
            return self._error(int(fault))
        if fault == "delay":
            time.sleep(DELAY_S)
        if fault == "held":
            self.server.go_on.wait(PATIENCE_S)
            return self._reset()
        status, headers, answer = self._forward(body)
        if fault == "500_after":
            return self._error(500)
        if fault == "reset_after" or (fault == "cut" and len(answer) < 2):
            return self._reset()
        self._answer(status, headers, answer[: len(answer) // 2] if fault == "cut" else answer)
        if fault == "cut":
            self._reset()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_one

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        conditions = ("if-match", "if-none-match") if self.server.careless else ()
        dropped = ("connection", "expect", "transfer-encoding", "content-length", *conditions)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        host, port = self.server.upstream.hostname or "", self.server.upstream.port
        store = http.client.HTTPConnection(host, port, timeout=PATIENCE_S)
        try:
            store.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
            answer = store.getresponse()
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in ("connection", "transfer-encoding")]
            return answer.status, kept, answer.read()
        finally:
            store.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        for name, value in [*headers, ("Connection", "close")]:
            self.send_header(name, value)
        if "content-length" not in names and self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _error(self, status: int) -> None:
        text = ERROR.format(code=CODES[status]).encode()
        self._answer(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))], text)

    def _reset(self) -> None:
        """A reset instead of an orderly end: what a crashed server or a firewall does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
