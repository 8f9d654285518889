"""A store that speaks S3 over a wire that fails: what was written is there once and whole, and everybody knows it."""

import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fault_proxy import FAULTS, FaultProxy
from object_store import BUCKET, PAGE, faults, s3, upload  # noqa: F401
from token_world import Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards import sealed_files
from toto.shards.cache.space import Space, cache_home
from toto.shards.store import RemoteStore, Store, is_exclusive, open_store
from toto.shards.store import owner as store_owner
from toto.shards.store import retry as store_retry
from toto.shards.store.names import SCRATCH
from toto.shards.store.owner import LOCK, only_run
from toto.shards.store.retry import patiently

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture
def store(faults: FaultProxy, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Store:  # noqa: F811
    """A dataset of this test's own, in the bucket."""
    monkeypatch.setattr(store_retry, "PAUSES_S", (0.01, 0.01, 0.01, 0.01))
    return open_store(f"s3://{BUCKET}/{request.node.name}")


def place(store: Store, name: str) -> str:
    """The path of a request for this file."""
    return f"{store.uri.removeprefix('s3:/')}/{name}"


def test_s3_creates_a_name_once(store: Store) -> None:
    assert is_exclusive(store) and store.list(SCRATCH) == []
    assert store.create("commits/a.json", b"first")
    assert not store.create("commits/a.json", b"first") and not store.create("commits/a.json", b"second")
    assert store.read("commits/a.json") == b"first"


@pytest.mark.parametrize("fault", [*FAULTS, "409"])
def test_who_created_a_file_knows_it_whatever_happened_to_the_reply(
    fault: str,
    store: Store,
    faults: FaultProxy,  # noqa: F811
) -> None:
    faults.once = [("PUT", "commits/a.json", fault)]
    assert store.create("commits/a.json", b"mine")
    assert not faults.once and store.read("commits/a.json") == b"mine"
    assert not store.create("commits/a.json", b"other")


def test_who_was_overtaken_between_two_tries_knows_it(
    store: Store,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    faults.once = [("PUT", "commits/a.json", "500")]
    overtaken = []
    monkeypatch.setattr(store_retry.time, "sleep", lambda s: overtaken.append(store.create("commits/a.json", b"other")))
    assert not store.create("commits/a.json", b"mine")
    assert overtaken == [True] and store.read("commits/a.json") == b"other"


def test_of_two_writers_exactly_one_creates_each_file_on_a_wire_that_fails(
    store: Store,
    faults: FaultProxy,  # noqa: F811
) -> None:
    faults.share = 0.1
    names = [f"commits/{i}.json" for i in range(12)]
    barrier, won = threading.Barrier(2), {"a": set[str](), "b": set[str]()}

    def race(who: str) -> None:
        for name in names:
            barrier.wait()
            if store.create(name, who.encode()):
                won[who].add(name)

    racers = [threading.Thread(target=race, args=(who,)) for who in won]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    faults.share = 0.0
    assert sorted([*won["a"], *won["b"]]) == sorted(names)
    assert all(store.read(name).decode() == who for who, mine in won.items() for name in mine)


@pytest.mark.parametrize("fault", ["503", "500_after", "reset", "cut"])
def test_every_other_request_gets_its_answer_in_the_end(
    fault: str,
    store: Store,
    faults: FaultProxy,  # noqa: F811
) -> None:
    data = fault.encode() * 1000
    digest = hashlib.sha256(data).hexdigest()
    name = f"shards/u-{digest[:8]}.arrow"
    path = store.scratch()
    path.write_bytes(data)

    def meets(method: str, part: str = name) -> None:
        assert faults.once == []
        faults.once = [(method, part, fault)]

    meets("PUT")
    store.publish(path, name)
    meets("HEAD")
    assert store.size(name) == len(data)
    meets("GET")
    assert store.sha256(name) == digest
    meets("GET")
    assert store.read(name) == data
    meets("GET")
    assert store.local_path(name).read_bytes() == data
    meets("GET", "prefix=")
    assert store.list("shards") == [name]
    meets("HEAD")
    assert store.exists(name) and store.age_s(name) < 60
    meets("PUT")
    store.write(name, b"other")
    version = store.version(name)
    meets("PUT")
    assert store.replace(name, b"newer", version) and not store.replace(name, b"newest", version)
    meets("DELETE")
    store.remove(name)
    assert not store.exists(name) and faults.once == []


def test_a_listing_of_several_pages_is_whole(store: RemoteStore) -> None:
    names = [f"commits/{i:03d}.json" for i in range(2 * PAGE + 7)]
    store.fs.pipe({f"{store.uri}/{name}": b"x" for name in names})
    assert store.list("commits") == names
    assert store.read_all(names) == (b"x",) * len(names)
    with pytest.raises(FileNotFoundError):
        store.read_all([*names, "commits/none.json"])


def test_what_is_refused_is_told_at_once_in_one_line(store: Store, faults: FaultProxy) -> None:  # noqa: F811
    faults.once = [("PUT", "commits/a.json", "403")]
    asked = len(faults.requests)
    with pytest.raises(UserError, match=r"commits/a\.json: access denied \(PermissionError.*check the credentials"):
        store.write("commits/a.json", b"x")
    assert [method for method, _ in faults.requests[asked:]] == ["PUT"]
    faults.once = [("HEAD", "dataset.json", "403")]
    with pytest.raises(UserError, match="access denied"):
        store.exists("dataset.json")  # a seal that took this for "no" would forget what is sealed
    for act in (is_exclusive, lambda s: s.read("dataset.json"), lambda s: s.list("commits")):
        with pytest.raises(UserError, match="no such bucket"):
            act(open_store("s3://nobodys-bucket/set"))


def test_a_store_that_stays_away_is_named(store: Store, faults: FaultProxy) -> None:  # noqa: F811
    faults.once = [("GET", place(store, "README.md"), "500")] * 5
    store.write("README.md", b"x")
    with pytest.raises(UserError, match=r"README\.md: the store does not answer .*run again later"):
        store.read("README.md")
    assert faults.once == []


def in_parts(store: RemoteStore, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, Path]:
    """A finished file of three parts of 5 MiB, the least that S3 takes, and its bytes."""
    import s3fs.core

    monkeypatch.setattr(s3fs.core, "calculate_chunksize", lambda size, chunksize=None: 5 << 20)
    data, path = bytes(range(256)) * (12 << 12), store.scratch()
    path.write_bytes(data)
    return data, path


@pytest.mark.parametrize("fault", ["reset_after", "500_after", "404"])
def test_a_large_file_is_there_although_the_reply_to_its_last_request_was_lost(
    fault: str,
    store: RemoteStore,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, path = in_parts(store, monkeypatch)
    faults.once = [("PUT", "partNumber=2", "reset"), ("POST", "uploadId=", fault)]
    store.publish(path, "shards/large.arrow")
    assert not faults.once and store.size("shards/large.arrow") == len(data)
    assert store.sha256("shards/large.arrow") == hashlib.sha256(data).hexdigest()


def test_a_large_file_of_which_a_part_is_refused_is_not_there_at_all(
    store: RemoteStore,
    faults: FaultProxy,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, path = in_parts(store, monkeypatch)
    faults.once = [("PUT", "partNumber=2", "403"), ("DELETE", "uploadId=", "403")]  # nor can it be taken back
    with pytest.raises(UserError, match="access denied"):
        store.publish(path, "shards/large.arrow")
    assert store.list("shards") == [] and path.exists()
    assert store.abort_uploads(1e9) == ()  # of a run that may be going on; this server says that all began in 2010
    assert store.abort_uploads(-60) == ("shards/large.arrow (an upload in parts)",)
    assert store.abort_uploads(-60) == ()


def test_local_copies_are_whole_or_not_there(store: RemoteStore, faults: FaultProxy) -> None:  # noqa: F811
    data = b"rows" * 1000
    name = f"shards/u-{hashlib.sha256(data).hexdigest()[:8]}.arrow"
    store.write(name, data)
    faults.once = [("GET", name, "403")]
    with pytest.raises(UserError, match="access denied"):
        store.local_path(name)
    copy = store.local_path(name)
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    copy.write_bytes(data[:-1])  # by a disk that was full, a crash, a hand
    assert open_store(store.uri).local_path(name).read_bytes() == data
    copy.unlink()
    store.write(name, data[::-1])
    with pytest.raises(UserError, match="arrives with other bytes"):
        open_store(store.uri).local_path(name)
    assert list(copy.parent.iterdir()) == []


def test_copies_count_in_the_cache_and_go_when_there_is_no_room(
    store: RemoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path))
    monkeypatch.setenv("TOTO_CACHE_BYTES", "300000")
    for i in range(4):
        data = bytes([i]) * 100_000
        name = f"shards/u-{hashlib.sha256(data).hexdigest()[:8]}.arrow"
        store.write(name, data)
        copy = store.local_path(name)
        assert copy.read_bytes() == data and cache_home() in copy.parents
        assert Space(cache_home()).used <= 300_000
    assert sum(path.stat().st_size for path in (tmp_path / "files").rglob("*.arrow")) == 200_000
    monkeypatch.setenv("TOTO_CACHE_BYTES", "0")
    assert store.local_path("shards/" + copy.name).read_bytes() == data
    store.write("README.md", bytes(100_000))
    assert store.local_path("README.md").read_bytes() == bytes(100_000) and not copy.exists()


@pytest.fixture(scope="module")
def shards(s3: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:  # noqa: F811
    """A dataset of two shards of 240 KB, each of 4 batches, in the bucket and in a folder."""
    rng = np.random.default_rng(0)
    videos = [Video(f"{i:02d}.mp4", rng.integers(0, 8192, (64, 16, 16))) for i in range(16)]
    root = write_tokens(tmp_path_factory.mktemp("set"), videos, vocab_size=8192, unit_sources=8, batch_bytes=64 << 10)
    return upload(root, "shards-by-parts"), root


@pytest.fixture
def remote(shards: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its address, with an empty cache and short pauses."""
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store_retry, "PAUSES_S", (0.01,) * 12)
    monkeypatch.setattr(sealed_files, "PAUSES_S", (0.01, 0.01))
    return shards[0]


def test_a_row_costs_the_footer_and_its_batch_and_a_row_in_the_cache_nothing(
    remote: str,
    shards: tuple[str, Path],
    faults: FaultProxy,  # noqa: F811
) -> None:
    data, local = Dataset(remote), Dataset(shards[1])
    asked = len(faults.requests)

    def requests() -> int:
        return len(faults.requests) - asked

    assert (data.row(0).tokens == local.row(0).tokens).all() and requests() == 3  # beginning, end, batch
    assert (data.row(1).tokens == local.row(1).tokens).all() and requests() == 3
    assert (data.row(2).tokens == local.row(2).tokens).all() and requests() == 4
    assert (Dataset(shards[1]).row(2).tokens == local.row(2).tokens).all()
    again = Dataset(remote)
    asked = len(faults.requests)
    assert (again.row(2).tokens == local.row(2).tokens).all() and requests() == 0
    data.prefetch([(1, 0), (1, 1), (1, 2), (1, 3)])
    assert all((data.row(i).tokens == local.row(i).tokens).all() for i in range(8, 16)) and requests() <= 6
    assert not (cache_home() / "files").exists()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_part_that_does_not_arrive_whole_is_asked_for_again(
    fault: str,
    remote: str,
    shards: tuple[str, Path],
    faults: FaultProxy,  # noqa: F811
) -> None:
    data, local = Dataset(remote), Dataset(shards[1])
    faults.once = [("GET", "/shards/", fault)] * 4
    assert all((data.row(i).tokens == local.row(i).tokens).all() for i in (0, 9, 5))
    assert not faults.once


def test_every_row_arrives_in_order_on_a_wire_that_fails(
    remote: str,
    shards: tuple[str, Path],
    faults: FaultProxy,  # noqa: F811
) -> None:
    expected = [row.record for row in Dataset(shards[1]).rows()]
    data = Dataset(remote)
    faults.share = 0.2
    found = [row.record for row in data.rows()]
    assert [row.row_id for row in found] == [row.row_id for row in expected]
    assert all((a.tokens == b.tokens).all() for a, b in zip(found, expected, strict=True))


def test_a_shard_that_is_gone_is_looked_for_again_and_then_named(
    remote: str,
    shards: tuple[str, Path],
    faults: FaultProxy,  # noqa: F811
) -> None:
    data, files = Dataset(remote), fsspec.filesystem("s3")
    name = next(path for path in sorted((shards[1] / "shards").iterdir()))
    path, content = f"{remote.removeprefix('s3://')}/shards/{name.name}", name.read_bytes()
    rows = [row.source for row in data.rows()]
    for gone, said in (
        (lambda: files.rm_file(path), rf"{remote}/shards/{name.name}: the file is missing, or not a regular file; run"),
        (lambda: files.pipe_file(path, content[:-9]), rf"shards/{name.name}: the store refuses .*too few for"),
        (lambda: files.pipe_file(path, content[:-9] + bytes(9)), rf"shards/{name.name}: not a readable shard"),
    ):
        gone()
        with pytest.raises(UserError, match=said):
            list(Dataset(remote).rows())
        with pytest.raises(UserError, match=said):
            [Dataset(remote).row(i) for i in range(len(rows))]
    files.pipe_file(path, content)
    assert [row.source for row in Dataset(remote).rows()] == rows


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may kill a fork of a process with threads")
def test_a_forked_reader_of_parts_makes_its_own_connections_and_threads(remote: str, shards: tuple[str, Path]) -> None:
    data = Dataset(remote)
    expected = [row.tokens.tobytes() for row in Dataset(shards[1]).rows()]
    data.prefetch([(0, i) for i in range(4)])
    child = os.fork()
    if not child:
        data.prefetch([(1, i) for i in range(4)])
        os._exit(0 if [data.row(i).tokens.tobytes() for i in range(16)] == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [data.row(i).tokens.tobytes() for i in range(16)] == expected


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS may kill a fork of a process with threads")
def test_a_forked_process_reads_on_connections_of_its_own(store: RemoteStore) -> None:
    store.write("README.md", b"read me")
    child = os.fork()
    if not child:
        os._exit(0 if store.read("README.md") == b"read me" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert store.read("README.md") == b"read me"


def test_a_store_that_forgets_conditions_is_found_out(store: Store, faults: FaultProxy) -> None:  # noqa: F811
    faults.careless = True
    assert not is_exclusive(store)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A lock that beats and is looked at many times a second; who beats has a minute for it."""
    for name, seconds in (("BEAT_S", 0.05), ("LOOK_S", 0.03), ("WATCH_S", 60), ("SETTLE_S", 0.05)):
        monkeypatch.setattr(store_owner, name, seconds)
    yield


def test_only_one_run_goes_on_where_conditions_are_forgotten(store: Store, quick: None) -> None:
    with only_run(store):
        with pytest.raises(UserError, match="only one run at a time"), only_run(store):
            pass
    assert not store.exists(LOCK)
    with only_run(store):
        pass


def test_the_lock_of_a_killed_run_is_taken_over(store: Store, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_owner, "WATCH_S", 0.3)
    store.write(LOCK, b'{"owner": "killed-1", "beat": 7}')
    with only_run(store):
        assert b"killed-1" not in store.read(LOCK)


def test_a_run_whose_lock_was_taken_is_stopped(store: Store, quick: None) -> None:
    with pytest.raises(UserError, match="the run other-2 is going on"), only_run(store):
        store.write(LOCK, b'{"owner": "other-2", "beat": 1}')
        while True:  # a signal that comes just before a sleep does not wake it
            time.sleep(0.05)
    assert b"other-2" in store.read(LOCK)


def test_no_secret_is_printed() -> None:
    for uri in ("https://user:secret@host/set", "https://host/set?X-Amz-Signature=secret"):
        with pytest.raises(UsageError, match="must hold no password and no query") as error:
            open_store(uri)
        assert "secret" not in str(error.value)

    def fail() -> None:
        raise ConnectionError("403, url='https://user:secret@host/set/a.mp4?X-Amz-Signature=secret&a=b'")

    with pytest.raises(UserError, match="https://host/set/a.mp4") as error:
        patiently(fail, "s3://bucket/a.mp4", ())
    assert "secret" not in str(error.value)
