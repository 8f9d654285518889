"""What a process keeps and has brought ahead, by threads and from remote stores: made once, bounded, never lost."""

import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from cache_world import anew, cache_of_a_test, cached_world, files, in_memory, places, stored, tokens  # noqa: F401

from toto import Dataset
from toto.errors import UserError
from toto.shards import batch_source, sealed_files
from toto.shards.cache import background
from toto.shards.cache.kept import Kept
from toto.shards.recipe import Recipe, make_recipe
from toto.shards.stream import Stream


def test_prefetched_batches_are_there_when_asked_for(root: Path, folder: Path) -> None:
    data = Dataset(root)
    known = places(data)
    data.prefetch(known)
    until = time.monotonic() + 200
    while len(files(folder)) < len(known) and time.monotonic() < until:
        time.sleep(0.01)
    assert tokens(data) == stored(root)
    data.prefetch([(99, 0)])  # whose failure is told who asks
    with pytest.raises(IndexError):
        data.shard_batch(99, 0)


def test_prefetched_files_of_the_cache_are_checked_when_asked_for_and_may_be_gone_by_then(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, known = tokens(anew(root)), places(Dataset(root))
    damaged, gone, *_ = files(folder)
    data = damaged.read_bytes()
    damaged.unlink()  # the mapping of the test's own process stays as it was
    damaged.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    reader = anew(root)
    assert reader.prefetch(known)
    gone.unlink()
    assert tokens(reader) == expected and damaged.read_bytes() == data and not gone.exists()
    monkeypatch.setattr(batch_source, "FOUND_FILES", 3)
    reader = anew(root)
    assert reader.prefetch(known) and len(reader._batches._found) == 3
    assert tokens(reader) == expected and not reader._batches._found


def test_datasets_that_read_a_shard_through_one_cache_share_what_is_kept(root: Path, folder: Path) -> None:
    batch = Dataset(root).shard_batch(1, 0)
    train = Dataset(root, split="train")
    assert train.shard_batch(1, 0) is batch
    assert Dataset(root, cache_bytes=0).shard_batch(1, 0) is not Dataset(root, cache_bytes=0).shard_batch(1, 0)
    assert Dataset(root, cache_bytes=1 << 30).shard_batch(1, 0) is not batch


def test_what_is_kept_is_held_against_each_manifest(root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Dataset(root).shard_batch(0, 1)
    other = Dataset(root)  # the manifest of a stranger, who claims the same shard with other rows in its batches
    rows = other._shards._batch_rows.copy()
    rows[0], rows[1] = rows[0] + 1, rows[1] - 1
    monkeypatch.setattr(other._shards, "_batch_rows", rows)
    with pytest.raises(UserError, match="batch 1 has another number of rows than the manifest says"):
        other.shard_batch(0, 1)


def test_what_is_asked_for_before_its_turn_is_made_at_once() -> None:
    kept, waiting = Kept[int](2), list[Callable[[], None]]()
    kept.begin("a", lambda: 1, waiting.append)
    kept.begin("a", lambda: 1, waiting.append)
    assert len(waiting) == 1 and kept.coming == 1
    assert kept.get("a", lambda: 2) == 2
    waiting[0]()
    assert kept.find("a") == 2 and kept.coming == 0


def test_of_threads_that_ask_for_one_value_one_makes_it_and_failures_are_tried_again() -> None:
    kept, made, barrier = Kept[int](2), [], threading.Barrier(4)

    def make() -> int:
        made.append(1)
        time.sleep(0.05)
        return 5

    def ask(found: list[int]) -> None:
        barrier.wait()
        found.append(kept.get("a", make))

    found: list[int] = []
    threads = [threading.Thread(target=ask, args=(found,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [5] * 4 and len(made) == 1
    with pytest.raises(ZeroDivisionError):
        kept.get("b", lambda: 1 // 0)
    assert kept.get("b", lambda: 1) == 1


def test_what_a_process_keeps_is_bounded_by_number_and_bytes() -> None:
    kept = Kept[bytes](3, 100, len)
    for i in range(10):
        kept.get(i, lambda: bytes(10))
    assert [kept.find(i) is not None for i in range(10)] == [False] * 7 + [True] * 3
    kept.get("large", lambda: bytes(1000))
    assert kept.find("large") is not None and kept.find(9) is None
    kept.get("small", lambda: bytes(10))
    assert kept.find("large") is None


def test_a_failure_at_any_place_leaves_nobody_waiting() -> None:
    def size(value: int) -> int:
        if not sizes.pop():
            raise KeyboardInterrupt
        return 1

    sizes, kept = [True, False], Kept[int](4, 0, lambda value: size(value))
    with pytest.raises(KeyboardInterrupt):
        kept.get("a", lambda: 1)
    assert kept.coming == 0 and kept.get("a", lambda: 2) == 2


def test_what_reads_when_the_threads_have_ended_reads_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = background.Background()
    monkeypatch.setattr(background, "BACKGROUND", ended)
    rows = in_memory(root, "ended").rows()
    found = [next(rows).source]
    ended.finish()
    found += [row.source for row in rows]
    assert found == [row.source for row in Dataset(root).rows()]
    assert list(background.ahead([lambda: 1, lambda: 2], 8)) == [1, 2]


def test_a_batch_that_was_damaged_on_its_way_is_asked_for_once_more(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(root), f"/{tmp_path.name}", recursive=True)
    data, get, damaged = Dataset(f"memory://{tmp_path.name}"), type(memory).cat_ranges, []

    def flip_once(self: object, paths: list[str], starts: list[int], ends: list[int], **rest: Any) -> list[bytes]:
        parts = get(self, paths, starts, ends, **rest)
        if len(parts) == 1 and (not damaged or damaged[0] == "always"):
            damaged.append("once")
            return [parts[0][:9000] + bytes([parts[0][9000] ^ 1]) + parts[0][9001:]]
        return parts

    monkeypatch.setattr(type(memory), "cat_ranges", flip_once)
    assert (data.row(0).tokens == Dataset(root).row(0).tokens).all() and damaged
    damaged[0] = "always"
    with pytest.raises(UserError, match="batch 2 (holds other values|does not read back)"):
        data.shard_batch(0, 2)


class WebServer(SimpleHTTPRequestHandler):
    """Serves a folder; parts of files only where `gives_parts` is set."""

    gives_parts = False
    asked: list[tuple[str, str | None]] = []  # (path, range)

    def do_GET(self) -> None:
        part = self.headers.get("Range")
        self.asked.append((self.path, part))
        if part is None or not self.gives_parts:
            return super().do_GET()
        first, last = (int(number) for number in part.removeprefix("bytes=").split("-"))
        data = Path(self.translate_path(self.path)).read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("gives_parts", [True, False])
def test_a_web_server_is_read_by_parts_or_else_each_shard_is_fetched_once(
    gives_parts: bool, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(WebServer, "gives_parts", gives_parts)
    monkeypatch.setattr(WebServer, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(WebServer, directory=str(root)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        data, local = Dataset(f"http://127.0.0.1:{server.server_port}"), Dataset(root)
        assert tokens(data) == stored(root) and len(list(data.rows())) == len(local)
        monkeypatch.setattr(WebServer, "list_directory", lambda self, path: self.send_error(403))
        recipe = recipe_of(data.store.uri)  # which names the snapshot by its id
        assert (Stream(recipe).sequence(5).tokens == Stream(recipe_of(root)).sequence(5).tokens).all()
    finally:
        server.shutdown()
        server.server_close()
    whole = [path for path, part in WebServer.asked if path.startswith("/shards/") and part is None]
    assert len(files(folder, "files")) == len(whole) == len(set(whole)) == (0 if gives_parts else 2)


def test_a_remote_shard_that_is_gone_is_asked_for_three_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, pauses = in_memory(root, "gone"), list[float]()
    fsspec.filesystem("memory").rm("/gone/shards", recursive=True)
    monkeypatch.setattr(sealed_files.time, "sleep", pauses.append)
    with pytest.raises(UserError, match="the file is missing"):
        data.shard_batch(0, 0)
    assert pauses == [1.0, 5.0]


def recipe_of(uri: str | Path) -> Recipe:
    return make_recipe([("world", str(uri), 1, None)], 4, 4, 0, 8)
