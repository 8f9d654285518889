"""The cache of inflated batches: same values with it and without, whatever happens to its files, disk and processes."""

import multiprocessing
import os
import signal
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from small_disk import Disk, small_disk  # noqa: F401
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards import sealed_files
from toto.shards.batch import Batch
from toto.shards.batch_source import BATCHES, BatchSource
from toto.shards.cache import background
from toto.shards.cache import batches as cache
from toto.shards.cache.batches import CacheWarning
from toto.shards.cache.kept import Kept
from toto.shards.cache.mapped import MappedBatch
from toto.shards.cache.space import UNIT, Space
from toto.shards.recipe import Recipe, make_recipe
from toto.shards.schema import RowRecord
from toto.shards.stream import Stream

FILE = 9 * UNIT  # what a batch of `root` takes
FORK, SPAWN = (multiprocessing.get_context(how) for how in ("fork", "spawn"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 15 batches in all, 64 KiB of ids in each, so that a batch takes nine units of the cache (FILE)."""
    rng = np.random.default_rng(0)
    videos = [Video(f"{i:02d}.mp4", rng.integers(0, 8192, (64, 16, 16))) for i in range(30)]
    return write_tokens(tmp_path_factory.mktemp("set"), videos, vocab_size=8192, unit_sources=16, batch_bytes=64 << 10)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of each test's own; what is said once in a process may be said in each test."""
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TOTO_CACHE_BYTES", raising=False)
    for known in (cache._opened, cache._say):
        known.cache_clear()
    yield tmp_path / "cache"


def recipe_of(uri: str | Path) -> Recipe:
    return make_recipe([("world", str(uri), 1, None)], 4, 4, 0, 8)


def places(data: Dataset) -> list[tuple[int, int]]:
    return [(shard, batch) for shard, batch, _ in data.batches()]


def tokens(data: Dataset) -> list[bytes]:
    """The ids of every batch, each asked for by its number."""
    return [data.shard_batch(*place).tokens.tobytes() for place in places(data)]


def stored(data: Dataset) -> list[bytes]:
    """The same from the shards, past the cache."""
    return [batch.tokens.tobytes() for _, _, batch in data.batches()]


def files(folder: Path, kind: str = "batches") -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def is_mapped(array: np.ndarray, folder: Path) -> bool:
    """Whether an array lies in a mapping of a file under this folder."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return str(folder) in line
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the kernel does not tell what is mapped")


@needs_proc
def test_a_batch_read_twice_is_a_read_only_view_of_a_mapped_file(root: Path, folder: Path) -> None:
    data = Dataset(root)
    batch = data.shard_batch(0, 1)
    assert data.shard_batch(0, 1) is batch
    assert len(files(folder)) == 1 and is_mapped(batch.tokens, folder) and is_mapped(batch.n_frames, folder)
    assert not batch.tokens.flags.writeable and not batch.starts.flags.writeable
    row = data.row(2)  # the rows of a batch are views of it too
    assert np.shares_memory(row.tokens, batch.tokens) and np.shares_memory(data.shard_row(0, 2).tokens, row.tokens)
    with pytest.raises(ValueError, match="read-only"):
        row.tokens[0] = 0


def test_reading_all_there_is_fills_no_cache(root: Path, folder: Path) -> None:
    assert len(list(Dataset(root).rows())) == 30 and Dataset(root).frames("03.mp4")
    assert not folder.exists()


SOURCES = st.lists(
    st.tuples(st.sampled_from(["video", "image"]), st.integers(1, 40), st.sampled_from([(1, 1), (2, 3)])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=6)
@given(SOURCES, st.integers(1, 3), st.sampled_from([64, 70_000]), st.integers(1, 5), st.integers(64, 4096))
def test_the_values_are_the_same_from_memory_cache_and_store(
    tmp_path_factory: pytest.TempPathFactory,
    sources: list[tuple[str, int, tuple[int, int]]],
    views: int,
    vocab_size: int,
    unit_sources: int,
    batch_bytes: int,
) -> None:
    rng, root = np.random.default_rng(len(sources)), tmp_path_factory.mktemp("any")
    codes = [(kind, rng.integers(0, vocab_size - views, (n, *grid))) for kind, n, grid in sources]
    write_tokens(
        root / "set",
        [Video(f"v{i}", c, views=views, label=i) for i, (kind, c) in enumerate(codes) if kind == "video"],
        [Image(f"i{i}", c[0], views=views) for i, (kind, c) in enumerate(codes) if kind == "image"],
        vocab_size=vocab_size,
        unit_sources=unit_sources,
        batch_bytes=batch_bytes,
    )
    fsspec.filesystem("memory").put(str(root / "set"), f"/{root.name}", recursive=True)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        patch.setenv("TOTO_CACHE", str(root / "cache"))
        expected = [row.record for row in Dataset(root / "set").rows()]
        for uri, nbytes in ((root / "set", 0), (f"memory://{root.name}", None), (root / "set", None)):
            data = Dataset(uri, cache_bytes=nbytes)
            assert len(data) == len(expected) == len(list(data.rows()))
            for i in rng.permutation(len(data)).tolist():
                found, known = data.row(i).record, expected[i]
                assert found.tokens.dtype == known.tokens.dtype and (found.tokens == known.tokens).all()
                assert {**vars(found), "tokens": 0} == {**vars(known), "tokens": 0}
    for place in places(data):  # what a mapped batch finds in its file is what one in memory works out
        mapped, inflated = data.shard_batch(*place), Dataset(root / "set", cache_bytes=0).shard_batch(*place)
        assert isinstance(mapped, MappedBatch) and not isinstance(inflated, MappedBatch)
        assert (mapped.grid, mapped.ids_end, mapped.rows) == (inflated.grid, inflated.ids_end, inflated.rows)
        assert mapped.ids_end == max(int(known.tokens.max()) for known in expected_of(inflated)) + 1
        assert (mapped.starts == inflated.starts).all() and mapped.bounds == inflated.starts.tolist()
        assert len({(row.grid_h, row.grid_w) for row in expected_of(inflated)}) == 1 or mapped.grid is None
    for i, (kind, c) in enumerate(codes):
        rows = data.frames(f"{kind[0]}{i}")
        assert [row.view for row in rows] == list(range(views))
        assert all((row.codes == (c if kind == "video" else c[:1]) + row.view).all() for row in rows)


def expected_of(batch: Batch) -> list[RowRecord]:
    return [batch.record(i) for i in range(batch.rows)]


def test_batches_are_found_again_at_their_place_alone(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    fsspec.filesystem("file").put(str(root), str(copy), recursive=True)
    expected, known = tokens(Dataset(copy)), places(Dataset(copy))
    hidden = (copy / "shards").rename(tmp_path / "hidden")
    data = Dataset(copy)
    assert [data.shard_batch(*place).tokens.tobytes() for place in known] == expected
    with pytest.raises(UserError, match="missing"):  # another dataset that claims the same hashes
        Dataset(copy.rename(tmp_path / "claims")).row(0)
    assert hidden.is_dir()
    other = write_tokens(tmp_path / "other", [Video("00.mp4", np.zeros((64, 16, 16), int))], vocab_size=8192)
    assert set(np.unique(Dataset(other).row(0).codes)) == {0}


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


def test_the_limit_is_kept_and_the_oldest_go_first(root: Path, folder: Path) -> None:
    limit = 13 * FILE  # of 15 batches
    data = Dataset(root, cache_bytes=limit)
    first, *others = places(data)
    data.shard_batch(*first)
    (oldest,) = files(folder)
    for place in others:
        for path in files(folder):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 1))
        data.shard_batch(*place)
        assert sum(-(-path.stat().st_size // UNIT) * UNIT for path in files(folder)) <= Space(folder).used <= limit
    assert 9 <= len(files(folder)) <= 13 and not oldest.exists()
    assert tokens(Dataset(root, cache_bytes=limit)) == stored(data)


@needs_proc
def test_a_mapped_batch_outlives_its_file(root: Path, folder: Path) -> None:
    data = Dataset(root)
    batch = data.shard_batch(0, 0)
    expected = batch.tokens.copy()
    Space(folder, 1).tidy()
    assert files(folder) == [] and Space(folder).used == 0
    assert is_mapped(batch.tokens, folder) and (batch.tokens == expected).all()
    assert (Dataset(root).shard_batch(0, 0).tokens == expected).all() and len(files(folder)) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_dropped_and_its_batch_read_anew(damage: str, root: Path, folder: Path) -> None:
    expected = tokens(Dataset(root))
    path = files(folder)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the mapping of the test's own process stays as it was
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-8]), "empty": b""}[damage])
    assert tokens(Dataset(root)) == expected
    assert path.read_bytes() != data and len(files(folder)) == len(expected)


def test_a_file_is_not_touched_more_than_once_a_minute(root: Path, folder: Path) -> None:
    Dataset(root).row(0)
    (path,) = files(folder)
    for age, touched in ((30, False), (90, True)):
        then = time.time() - age
        os.utime(path, (then, then))
        Dataset(root).row(0)
        assert (path.stat().st_mtime > then + 1) is touched


def test_without_a_cache_batches_stay_in_memory(root: Path, folder: Path) -> None:
    data = Dataset(root, cache_bytes=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokens(data) == stored(data)
    assert not folder.exists()
    assert data.shard_batch(0, 0) is data.shard_batch(0, 0)


def test_a_folder_that_cannot_be_made_is_done_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "file" / "cache"))
    data = Dataset(root)
    with pytest.warns(CacheWarning, match=r"file/cache: Not a directory") as said:
        assert tokens(data) == stored(data)
    assert len(said) == 1


def test_a_full_disk_and_one_that_cannot_be_written_are_done_without(
    root: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOTO_CACHE", str(disk.place / "cache"))
    monkeypatch.setattr(cache, "OFF_S", 0.0)
    expected = tokens(Dataset(root, cache_bytes=1 << 30))
    known = files(disk.place / "cache")
    disk.remount("ro")
    known_here = Dataset(root)
    assert tokens(known_here) == expected  # what is there is read
    disk.remount("rw")
    del known_here
    BATCHES._forget()  # a disk with files that are removed and mapped cannot be made read-only
    for path in known:
        path.unlink()
    disk.remount("ro")
    with pytest.warns(CacheWarning, match="Read-only file system") as said:
        assert tokens(Dataset(root)) == expected
    assert len(said) == 1
    disk.remount("rw")
    for path in files(disk.place / "cache"):
        path.unlink()
    BATCHES._forget()
    filler = disk.fill(left=100_000)
    with pytest.warns(CacheWarning, match="No space left on device") as said:
        assert tokens(Dataset(root, cache_bytes=1 << 30)) == expected
    assert len(said) == 1 and len(files(disk.place / "cache")) < 3
    assert files(disk.place / "cache", "tmp") == []
    filler.unlink()
    BATCHES._forget()
    filler = disk.fill(left=600_000)  # room for four batches: half of them go whenever there is none
    assert tokens(Dataset(root, cache_bytes=1 << 30)) == expected
    assert 1 <= len(files(disk.place / "cache")) <= 4
    filler.unlink()
    assert tokens(Dataset(root, cache_bytes=1 << 30)) == expected
    assert len(files(disk.place / "cache")) == len(expected)


def test_a_limit_that_is_no_number_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("64 GB", "²", "9" * 5_000):
        monkeypatch.setenv("TOTO_CACHE_BYTES", text)
        with pytest.raises(UsageError, match=f"TOTO_CACHE_BYTES is '{text[:40]}': give a whole number of bytes"):
            Dataset(root).row(0)
    monkeypatch.setenv("TOTO_CACHE_BYTES", str(2 * FILE))
    assert tokens(Dataset(root)) == stored(Dataset(root))


def in_child(act: Callable[[], Any]) -> int:
    """Runs `act` in a forked process; its exit status as `os.waitpid` gives it."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def die(*arguments: object, **named: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_then_die(self: object, path: Path, data: Any) -> None:
    part = self._space.scratch()  # type: ignore[attr-defined]
    part.write_bytes(memoryview(data)[: len(data) // 2])
    die()


def after(act: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **named: (act(*arguments, **named), die())


MOMENTS = {
    "counted, nothing written": (cache.Cache, "_place", die),
    "half written": (cache.Cache, "_place", half_then_die),
    "written, not renamed": (cache, "_rename", die),
    "renamed": (cache, "_rename", after(cache._rename)),
    "room being made": (os, "rmdir", die),
    "room made, sum not corrected": (os, "truncate", die),
}
posix = pytest.mark.skipif(sys.platform == "darwin", reason="macOS may kill a fork of a process with threads")


@posix
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_any_moment_leaves_no_wrong_data_and_no_litter(
    moment: str, root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 8 * FILE
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment])
        assert in_child(lambda: tokens(Dataset(root, cache_bytes=limit))) == signal.SIGKILL
    assert tokens(Dataset(root, cache_bytes=limit)) == stored(Dataset(root))
    assert files(folder, "tmp") == []
    kept = sum(-(-path.stat().st_size // UNIT) * UNIT for path in files(folder))
    assert kept <= Space(folder).used <= limit
    Space(folder, limit).tidy()
    assert Space(folder).used == sum(-(-path.stat().st_size // UNIT) * UNIT for path in files(folder))


def fill(root: Path, seed: int, limit: int) -> bytes:
    """Every batch in an order of this process's own, three times; what it read, joined."""
    data = Dataset(root, cache_bytes=limit)
    known, found = places(data), {}
    for _ in range(3):
        for i in np.random.default_rng(seed).permutation(len(known)).tolist():
            BATCHES._forget()
            found[i] = data.shard_batch(*known[i]).tokens.tobytes()
    return b"".join(found[i] for i in sorted(found))


@posix
def test_processes_that_fill_and_empty_one_cache_at_once_read_the_same(root: Path, folder: Path) -> None:
    limit = 5 * FILE
    expected = b"".join(stored(Dataset(root)))
    with FORK.Pool(3) as pool:
        killed = FORK.Process(target=fill, args=(root, 9, limit))
        killed.start()
        found = pool.starmap_async(fill, [(root, seed, limit) for seed in range(3)])
        time.sleep(0.05)
        killed.kill()
        killed.join()
        assert found.get(60) == [expected] * 3
    assert len(files(folder)) <= 5 + 4 and Space(folder).used <= limit + 4 * FILE  # one more of each process


@posix
def test_a_fork_while_batches_are_on_their_way_reads_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset(root)
    expected, known, begun, go_on = stored(data), places(data), threading.Event(), threading.Event()
    bring, parent = BatchSource._bring, os.getpid()

    def slow(self: BatchSource, shard: int, batch: int) -> Any:
        if os.getpid() == parent:
            begun.set()
            go_on.wait(20)
        return bring(self, shard, batch)

    monkeypatch.setattr(BatchSource, "_bring", slow)
    data.prefetch(known)
    assert begun.wait(20)

    def child() -> None:
        data.prefetch(known)
        assert [data.shard_batch(*place).tokens.tobytes() for place in known] == expected

    status = in_child(child)
    go_on.set()
    assert status == 0 and tokens(data) == expected


def row_of(data: Dataset, i: int) -> bytes:
    return data.row(i).tokens.tobytes()


def test_a_spawned_worker_reads_through_the_same_cache(root: Path, folder: Path) -> None:
    data = Dataset(root)
    expected = data.row(7).tokens.tobytes()
    with SPAWN.Pool(1) as pool:
        assert pool.apply(row_of, (data, 7)) == expected
    assert len(files(folder)) == 1


def test_prefetched_batches_are_there_when_asked_for(root: Path, folder: Path) -> None:
    data = Dataset(root)
    known = places(data)
    data.prefetch(known)
    until = time.monotonic() + 20
    while len(files(folder)) < len(known) and time.monotonic() < until:
        time.sleep(0.01)
    assert tokens(data) == stored(data)
    data.prefetch([(99, 0)])  # whose failure is told who asks
    with pytest.raises(IndexError):
        data.shard_batch(99, 0)


def test_what_is_asked_for_before_its_turn_is_made_at_once() -> None:
    kept, waiting = Kept[int](2), list[Callable[[], None]]()
    kept.begin("a", lambda: 1, waiting.append)
    kept.begin("a", lambda: 1, waiting.append)
    assert len(waiting) == 1 and kept.coming == 1
    assert kept.get("a", lambda: 2) == 2
    waiting[0]()
    assert kept.find("a") == 2 and kept.coming == 0


@pytest.mark.parametrize(("fact", "value"), [(0, 0), (0, -2), (1, 1 << 40), (2, -1), (2, 1 << 40), (3, 3), (4, -8)])
def test_a_file_whose_facts_lead_out_of_it_is_made_anew(fact: int, value: int, root: Path, folder: Path) -> None:
    expected = Dataset(root, cache_bytes=0).shard_batch(0, 0)
    Dataset(root).shard_batch(0, 0)
    [file] = folder.glob("batches/*/0.arrow")
    data = bytearray(file.read_bytes()[:-8])
    struct.pack_into("<q", data, len(data) - 64 + 8 * fact, value)
    file.write_bytes(data + xxhash.xxh3_64_digest(data))
    again = Dataset(root).shard_batch(0, 0)
    assert (again.tokens == expected.tokens).all() and (again.starts == expected.starts).all()
    assert file.read_bytes() != data + xxhash.xxh3_64_digest(data)


@posix
def test_a_fork_has_what_was_kept_and_makes_what_was_being_made() -> None:
    kept, begun, go_on = Kept[int](4, 100, lambda value: value), threading.Event(), threading.Event()
    kept.get("there", lambda: 1)

    def slow() -> int:
        begun.set()
        go_on.wait(20)
        return 2

    maker = threading.Thread(target=kept.get, args=("coming", slow))
    maker.start()
    assert begun.wait(20)

    def child() -> None:
        assert kept.find("there") == 1 and kept.find("coming") is None and kept.coming == 0
        assert kept.get("coming", lambda: 3) == 3 and kept.get("large", lambda: 98) == 98
        assert kept.find("there") is None and kept.find("coming") is None  # what they take was counted anew

    status = in_child(child)
    go_on.set()
    maker.join()
    assert status == 0 and kept.find("coming") == 2


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


def test_the_default_limit_is_a_share_of_the_free_space(disk: Disk) -> None:
    space = Space(disk.place / "cache")
    assert space.limit <= 4 << 20 and abs(space.limit - (16 << 20) / 5) < 1 << 20


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
        assert tokens(data) == stored(local) and len(list(data.rows())) == len(local)
        monkeypatch.setattr(WebServer, "list_directory", lambda self, path: self.send_error(403))
        recipe = recipe_of(data.store.uri)  # which names the snapshot by its id
        assert (Stream(recipe).sequence(5).tokens == Stream(recipe_of(root)).sequence(5).tokens).all()
    finally:
        server.shutdown()
        server.server_close()
    whole = [path for path, part in WebServer.asked if path.startswith("/shards/") and part is None]
    assert len(files(folder, "files")) == len(whole) == len(set(whole)) == (0 if gives_parts else 2)


def in_memory(root: Path, name: str) -> Dataset:
    """The dataset in a store that is not this disk."""
    fsspec.filesystem("memory").put(str(root), f"/{name}", recursive=True)
    return Dataset(f"memory://{name}")


@posix
def test_a_forked_process_goes_on_where_its_parent_read_ahead(root: Path) -> None:
    rows = in_memory(root, "forked").rows()
    first = next(rows).source

    def rest() -> None:
        signal.alarm(20)
        assert [first, *(row.source for row in rows)] == [row.source for row in Dataset(root).rows()]

    assert in_child(rest) == 0
    assert len(list(rows)) == len(Dataset(root)) - 1


def test_what_reads_when_the_threads_have_ended_reads_by_itself(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = background.Background()
    monkeypatch.setattr(background, "BACKGROUND", ended)
    rows = in_memory(root, "ended").rows()
    found = [next(rows).source]
    ended.finish()
    found += [row.source for row in rows]
    assert found == [row.source for row in Dataset(root).rows()]
    assert list(background.ahead([lambda: 1, lambda: 2], 8)) == [1, 2]


def test_a_failure_at_any_place_leaves_nobody_waiting() -> None:
    def size(value: int) -> int:
        if not sizes.pop():
            raise KeyboardInterrupt
        return 1

    sizes, kept = [True, False], Kept[int](4, 0, lambda value: size(value))
    with pytest.raises(KeyboardInterrupt):
        kept.get("a", lambda: 1)
    assert kept.coming == 0 and kept.get("a", lambda: 2) == 2


def test_a_remote_shard_that_is_gone_is_asked_for_three_times(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, pauses = in_memory(root, "gone"), list[float]()
    fsspec.filesystem("memory").rm("/gone/shards", recursive=True)
    monkeypatch.setattr(sealed_files.time, "sleep", pauses.append)
    with pytest.raises(UserError, match="the file is missing"):
        data.shard_batch(0, 0)
    assert pauses == [1.0, 5.0]
