"""Files of a dataset appear whole or not at all, and of two creators one wins."""

import errno
import hashlib
import multiprocessing
import socket
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from toto.errors import UsageError, UserError
from toto.shards import store as stores
from toto.shards.store import LocalStore, is_exclusive, open_store
from toto.shards.store.owner import open_target

ROUNDS = 200


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> stores.Store:
    """A folder, and an object store in memory."""
    return open_store(tmp_path / "set" if request.param == "local" else f"memory://{tmp_path.name}-{request.node.name}")


def test_what_was_written_reads_back(store: stores.Store) -> None:
    store.write("commits/a.json", b"one")
    store.write("commits/a.json", b"two")
    assert store.read("commits/a.json") == b"two"
    assert store.list("commits") == ["commits/a.json"] and store.size("commits/a.json") == 3
    assert store.local_path("commits/a.json").read_bytes() == b"two"
    store.write("commits/a.json", b"three")
    assert store.sha256("commits/a.json") == hashlib.sha256(b"three").hexdigest()


def test_of_a_folder_that_cannot_be_made_nobody_is_told_a_bucket() -> None:
    with pytest.raises(UserError, match="no folder can be made there; choose another --out"):
        is_exclusive(open_store("/proc/toto-set"))


@pytest.mark.parametrize("uri", ["s3://", "hf:///", "memory://"])
def test_a_uri_of_no_place_is_refused_before_anybody_is_asked(uri: str) -> None:
    with pytest.raises(UsageError, match=f"{uri} names no place; give one such as "):
        open_store(uri)


class Broken(BaseHTTPRequestHandler):
    """Gives `b"whole"` for any name, but first, once for each name, what the name says."""

    protocol_version = "HTTP/1.1"
    seen: set[str] = set()
    over: threading.Event

    def do_GET(self) -> None:
        """One request."""
        self.close_connection = True
        how = "whole" if self.path in self.seen else self.path.rpartition("/")[2]
        self.seen.add(self.path)
        if how == "garbled":
            self.wfile.write(b"no answer of HTTP\r\n\r\n")
        if how in ("nothing", "garbled"):
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"wh" if how in ("cut", "reset", "silent") else b"whole")
        if how == "silent":
            self.over.wait(60)
        if how == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def test_a_web_server_whose_answers_break_off_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("toto.shards.store.retry.PAUSES_S", (0.0,) * 20)
    monkeypatch.setattr("toto.shards.store.connection.SILENT_S", 0.5)
    monkeypatch.setattr(Broken, "seen", set())
    monkeypatch.setattr(Broken, "over", threading.Event(), raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        store = open_store(f"http://127.0.0.1:{server.server_port}/set")
        for how in ("nothing", "garbled", "cut", "reset", "silent"):
            assert store.read(how) == b"whole"
    finally:
        Broken.over.set()
        server.shutdown()
        server.server_close()
    assert len(Broken.seen) == 5


def test_a_name_is_created_once(store: stores.Store) -> None:
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"
    assert is_exclusive(store)


def test_a_finished_file_is_moved_to_its_name(store: stores.Store) -> None:
    path = store.scratch()
    path.write_bytes(b"rows")
    store.publish(path, "shards/u.arrow")
    assert store.read("shards/u.arrow") == b"rows" and not path.exists()
    store.remove("shards/u.arrow")
    store.remove("shards/u.arrow")
    assert not store.exists("shards/u.arrow") and store.list("nowhere") == []


def test_of_two_processes_exactly_one_creates_each_commit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(tmp_path, name, barrier, queue)) for name in ("a", "b")]
    for racer in racers:
        racer.start()
    wins = dict(queue.get(timeout=200) for _ in racers)
    for racer in racers:
        racer.join()
    assert sorted(wins["a"] + wins["b"]) == list(range(ROUNDS))
    for i in range(ROUNDS):
        winner = "a" if i in wins["a"] else "b"
        assert (tmp_path / f"commits/{i}.json").read_text() == winner


def test_a_store_that_lets_both_win_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    monkeypatch.setattr(store, "create", lambda name, data: True)
    assert not is_exclusive(store)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)

    def full(path: Path, data: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        store.write("commits/a.json", b"x")
    assert store.list("commits") == [] and store.list(stores.SCRATCH) == []


def _race(root: Path, name: str, barrier, queue) -> None:  # type: ignore[no-untyped-def]
    store, won = LocalStore(root), []
    for i in range(ROUNDS):
        barrier.wait()
        if store.create(f"commits/{i}.json", name.encode()):
            won.append(i)
    queue.put((name, won))


@pytest.mark.parametrize("name", ["commits/one.json", None])
def test_a_new_folder_goes_again_where_nothing_was_written_there(tmp_path: Path, name: str | None) -> None:
    for there in (False, True):
        root = tmp_path / str(there)
        if there:
            root.mkdir()
        with pytest.raises(UserError, match="no videos"), open_target(str(root)) as store:
            if name:
                store.write(name, b"{}")
            raise UserError("no videos")
        assert root.exists() == (there or name is not None)
        assert not name or store.exists(name)
