"""The cache of inflated batches: same values with it and without, whatever happens to its files and its disk."""

import errno
import os
import struct
import time
import warnings
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from cache_world import FILE, anew, cache_of_a_test, cached_world, files, places, stored, tokens, units  # noqa: F401
from hypothesis import given, settings
from hypothesis import strategies as st
from small_disk import Disk, small_disk  # noqa: F401
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.errors import UsageError, UserError
from toto.shards import dataset
from toto.shards.batch import Batch
from toto.shards.batch_source import BATCHES
from toto.shards.cache import batches as cache
from toto.shards.cache.batches import CacheWarning
from toto.shards.cache.mapped import MappedBatch
from toto.shards.cache.space import Space
from toto.shards.schema import RowRecord
from toto.shards.unit_table import read_manifest


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
    assert {entry.name for entry in folder.glob("*")} <= {"tables", "tmp", "used"}


def test_a_manifest_is_parsed_once_on_a_machine_and_anew_where_what_was_kept_is_damaged(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str | None] = []

    def read(data: bytes, name: str, split: str | None) -> pa.Table:
        parsed.append(split)
        return read_manifest(data, name, split)

    def opened(split: str | None = None, nbytes: int | None = None) -> pa.Table:
        dataset.MANIFESTS._forget()
        return Dataset(root, split=split, cache_bytes=nbytes)._manifest

    monkeypatch.setattr(dataset, "read_manifest", read)
    assert opened(nbytes=0) == opened() == opened() and parsed == [None, None]
    assert opened("train") == opened("train") and parsed == [None, None, "train"]
    whole, of_split = (path.read_bytes() for path in files(folder, "tables"))
    for path in files(folder, "tables"):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.unlink()
        path.write_bytes(data)
    assert opened() == opened() and opened("train") == opened("train") and parsed[3:] == [None, "train"]
    assert {path.read_bytes() for path in files(folder, "tables")} == {whole, of_split}


SOURCES = st.lists(
    st.tuples(st.sampled_from(["video", "image"]), st.integers(1, 24), st.sampled_from([(1, 1), (2, 3)])),
    min_size=1,
    max_size=8,
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
        assert (mapped.starts == inflated.starts).all()
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
    data = anew(copy)
    assert [data.shard_batch(*place).tokens.tobytes() for place in known] == expected
    with pytest.raises(UserError, match="missing"):  # another dataset that claims the same hashes
        Dataset(copy.rename(tmp_path / "claims")).row(0)
    assert hidden.is_dir()
    other = write_tokens(tmp_path / "other", [Video("00.mp4", np.zeros((64, 16, 16), int))], vocab_size=8192)
    assert set(np.unique(Dataset(other).row(0).codes)) == {0}


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
        assert units(folder) <= Space(folder).used <= limit
    assert 9 <= len(files(folder)) <= 13 and not oldest.exists()
    assert tokens(anew(root, limit)) == stored(root)


@needs_proc
def test_a_mapped_batch_outlives_its_file(root: Path, folder: Path) -> None:
    data = Dataset(root)
    batch = data.shard_batch(0, 0)
    expected = batch.tokens.copy()
    Space(folder, 1).tidy()
    assert files(folder) == [] and Space(folder).used == 0
    assert is_mapped(batch.tokens, folder) and (batch.tokens == expected).all()
    assert (anew(root).shard_batch(0, 0).tokens == expected).all() and len(files(folder)) == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_file_is_dropped_and_its_batch_read_anew(damage: str, root: Path, folder: Path) -> None:
    expected = tokens(anew(root))
    path = files(folder)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # the mapping of the test's own process stays as it was
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-8]), "empty": b""}[damage])
    assert tokens(anew(root)) == expected
    assert path.read_bytes() != data and len(files(folder)) == len(expected)


@pytest.mark.parametrize(("fact", "value"), [(0, 0), (0, -2), (1, 1 << 40), (2, -1), (2, 1 << 40), (3, 3), (4, -8)])
def test_a_file_whose_facts_lead_out_of_it_is_made_anew(fact: int, value: int, root: Path, folder: Path) -> None:
    expected = Dataset(root, cache_bytes=0).shard_batch(0, 0)
    Dataset(root).shard_batch(0, 0)
    [file] = folder.glob("batches/*/0.arrow")
    data = bytearray(file.read_bytes()[:-8])
    struct.pack_into("<q", data, len(data) - 64 + 8 * fact, value)
    file.write_bytes(data + xxhash.xxh3_64_digest(data))
    again = anew(root).shard_batch(0, 0)
    assert (again.tokens == expected.tokens).all() and (again.starts == expected.starts).all()
    assert file.read_bytes() != data + xxhash.xxh3_64_digest(data)


def test_a_process_that_can_open_no_more_files_leaves_them_to_others(
    root: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, known = tokens(anew(root)), {path: path.stat().st_ino for path in files(folder)}

    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(cache, "map_file", full)
    opened = cache.open_cache()
    assert known and all(opened.find(path.parent.name, int(path.stem)) is None for path in known)
    assert {path: path.stat().st_ino for path in files(folder)} == known
    assert tokens(anew(root)) == expected


def test_the_folder_of_a_cache_may_have_a_name_that_is_not_utf_8(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / os.fsdecode(b"caf\xe9")))
    try:
        os.mkdir(tmp_path / os.fsdecode(b"\xe9"))
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    assert tokens(anew(root)) == tokens(anew(root)) == stored(root)


def test_a_file_is_not_touched_more_than_once_in_ten_minutes(root: Path, folder: Path) -> None:
    Dataset(root).row(0)
    (path,) = files(folder)
    for age, touched in ((300, False), (900, True)):
        then = time.time() - age
        os.utime(path, (then, then))
        anew(root).row(0)
        assert (path.stat().st_mtime > then + 1) is touched


def test_without_a_cache_batches_stay_in_memory(root: Path, folder: Path) -> None:
    data = Dataset(root, cache_bytes=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tokens(data) == stored(root)
    assert not folder.exists()
    assert data.shard_batch(0, 0) is data.shard_batch(0, 0)


def test_a_folder_that_cannot_be_made_is_done_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TOTO_CACHE", str(tmp_path / "file" / "cache"))
    data = Dataset(root)
    with pytest.warns(CacheWarning, match=r"file/cache: Not a directory") as said:
        assert tokens(data) == stored(root)
    assert len(said) == 1


def test_a_full_disk_and_one_that_cannot_be_written_are_done_without(
    root: Path,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOTO_CACHE", str(disk.place / "cache"))
    monkeypatch.setattr(cache, "OFF_S", 0.0)
    expected = tokens(anew(root, 1 << 30))
    known = files(disk.place / "cache")
    disk.remount("ro")
    known_here = anew(root)
    assert tokens(known_here) == expected  # what is there is read
    disk.remount("rw")
    del known_here
    BATCHES._forget()  # a disk with files that are removed and mapped cannot be made read-only
    for path in known:
        path.unlink()
    disk.remount("ro")
    with pytest.warns(CacheWarning, match="Read-only file system") as said:
        assert tokens(anew(root)) == expected
    assert len(said) == 1
    disk.remount("rw")
    for path in files(disk.place / "cache"):
        path.unlink()
    BATCHES._forget()
    filler = disk.fill(left=100_000)
    with pytest.warns(CacheWarning, match="No space left on device") as said:
        assert tokens(anew(root, 1 << 30)) == expected
    assert len(said) == 1 and len(files(disk.place / "cache")) < 3
    assert files(disk.place / "cache", "tmp") == []
    filler.unlink()
    BATCHES._forget()
    filler = disk.fill(left=600_000)  # room for four batches: half of them go whenever there is none
    assert tokens(anew(root, 1 << 30)) == expected
    assert 1 <= len(files(disk.place / "cache")) <= 4
    filler.unlink()
    assert tokens(anew(root, 1 << 30)) == expected
    assert len(files(disk.place / "cache")) == len(expected)


def test_a_limit_that_is_no_number_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("64 GB", "²", "9" * 5_000):
        monkeypatch.setenv("TOTO_CACHE_BYTES", text)
        with pytest.raises(UsageError, match=f"TOTO_CACHE_BYTES is '{text[:40]}': give a whole number of bytes"):
            Dataset(root).row(0)
    monkeypatch.setenv("TOTO_CACHE_BYTES", str(2 * FILE))
    assert tokens(anew(root)) == stored(root)


def test_the_default_limit_is_a_share_of_the_free_space(disk: Disk) -> None:
    space = Space(disk.place / "cache")
    assert space.limit <= 4 << 20 and abs(space.limit - (16 << 20) / 5) < 1 << 20
