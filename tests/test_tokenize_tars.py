"""Tars are read where they lie: by headers, never extracted, whatever a stranger put in them."""

import io
import os
import shutil
import subprocess
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from archives import member, parts_of, tar_of
from footage import read, request
from hypothesis import given
from hypothesis import strategies as st

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.clip import SourceError
from toto.tokenize.decode import decode
from toto.tokenize.input_file import open_binary
from toto.tokenize.ranges import Ranges
from toto.tokenize.sources import tar_index
from toto.tokenize.sources.names import MEDIA_SUFFIXES
from toto.tokenize.sources.tar_headers import tar_entries
from toto.tokenize.sources.tars import list_media
from toto.tokenize.transient import REMOTE_PAUSES_S

pytestmark = pytest.mark.usefixtures("cache")

GNU_TAR = shutil.which("tar")
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def listed(data: bytes) -> tuple[dict[str, bytes], Counter[str]]:
    """(name -> bytes, ignored) of a tar by our headers."""
    ignored: Counter[str] = Counter()
    entries = tar_entries(lambda at, size: data[at : at + size], 0, len(data), ignored)
    return {entry.name: data[entry.offset : entry.offset + entry.size] for entry in entries}, ignored


def found_in(root: Path | str) -> tuple[dict[str, bytes], dict[str, int]]:
    """(key -> bytes, ignored) of a folder with tars."""
    files, ignored = list_media(DatasetConfig(name="mine", layout="folder", root=str(root)), MEDIA_SUFFIXES)
    assert [file.key for file in files] == sorted(file.key for file in files)
    contents = {}
    for file in files:
        with open_binary(file.uri) as opened:
            contents[file.key] = opened.read()
        assert len(contents[file.key]) == file.size
    return contents, dict(ignored)


def refusal(root: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        list_media(DatasetConfig(name="mine", layout="folder", root=str(root)), MEDIA_SUFFIXES)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


# The headers of a tar


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=160)


@given(st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=6), st.sampled_from(sorted(FORMATS)))
def test_headers_are_read_as_the_standard_library_reads_them(members: list[tuple[str, bytes]], form: str) -> None:
    members = [(name.strip("/") or "x", content) for name, content in members]
    try:
        data = tar_of(members, FORMATS[form])
    except ValueError:  # ustar has no place for long names
        data = tar_of(members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = {info.name: tar.extractfile(info).read() for info in tar if info.isreg()}  # type: ignore[union-attr]
    found, ignored = listed(data)
    assert {name.rstrip("/"): content for name, content in found.items()} == expected
    assert not ignored


@pytest.mark.skipif(GNU_TAR is None, reason="there is no tar command here")
@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_tars_of_the_tar_command_are_read_and_what_is_no_file_is_counted(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    long = "deep/" * 12 + "n" * 35 if form in ("v7", "ustar") else "deep/" * 30 + "é" * 100
    for name in ("a.mp4", long):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(700))
    (folder / "link").symlink_to("a.mp4")
    os.link(folder / "a.mp4", folder / "same")
    counts = {"(link in a tar)": 2}
    if form != "v7":
        os.mkfifo(folder / "pipe")
        counts["(not a regular file)"] = 1
    if form in ("oldgnu", "gnu", "pax"):
        with open(folder / "sparse", "wb") as file:
            for i in range(40):  # more holes than a header has room for
                file.seek(i * 200_000)
                file.write(os.urandom(4096))
        counts["(sparse file in a tar)"] = 1
    sparse = ["-S"] if "(sparse file in a tar)" in counts else []
    (folder / "z.mp4").write_bytes(os.urandom(100))
    done = subprocess.run(
        ["tar", f"--format={form}", *sparse, "--sort=name", "-cf", "../it.tar", "."], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    found, ignored = listed((tmp_path / "it.tar").read_bytes())
    expected = {f"./{name}": (folder / name).read_bytes() for name in ("a.mp4", long, "z.mp4")}
    assert found == expected and ignored == counts


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_what_lies_behind_nine_gigabytes_is_found(form: str, tmp_path: Path) -> None:
    size, path = 9 * 2**30, tmp_path / "large.tar"
    with open(path, "wb") as file:  # a hole: it takes no space
        file.write(member("large.mp4", size).tobuf(FORMATS[form]))
        start = file.tell()
        file.seek(size, os.SEEK_CUR)
        file.write(tar_of({"small.mp4": b"small"}, FORMATS[form]))
    files, ignored = list_media(DatasetConfig(name="mine", layout="folder", root=str(tmp_path)), MEDIA_SUFFIXES)
    assert [(file.key, file.size) for file in files] == [("large/large.mp4", size), ("large/small.mp4", 5)]
    assert not ignored
    assert files[0].uri.startswith(f"part:{start}+{size}+{start}+") and files[0].uri.endswith(f":{path}")
    with open_binary(files[0].uri) as large, open_binary(files[1].uri) as small:
        assert large.seek(-3, 2) == size - 3 and large.read() == bytes(3) and small.read() == b"small"


def test_a_tar_that_is_cut_anywhere_gives_what_is_whole_and_says_so() -> None:
    contents = {"a": b"a" * 700, "long" * 40: b"b" * 10, "c": b"c" * 1500}
    whole = tar_of(contents)
    ends = [info.offset_data + info.size for info in tarfile.open(fileobj=io.BytesIO(whole))]
    assert listed(whole) == (contents, {})
    for cut in range(0, ends[-1] + 512, 37):
        found, ignored = listed(whole[:cut])
        complete = [name for name, end in zip(contents, ends, strict=True) if end <= cut]
        assert {name: found[name] for name in complete} == {name: contents[name] for name in complete}
        assert len(found) <= len(complete) + 1 and sum(ignored.values()) == 1, cut


def test_a_member_that_is_cut_is_listed_and_ends_in_an_error_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "set.tar").write_bytes(tar_of({"a.mp4": bytes(2000), "b.mp4": bytes(3000)})[:4000])
    files, ignored = list_media(DatasetConfig(name="mine", layout="folder", root=str(tmp_path)), MEDIA_SUFFIXES)
    assert [(file.key, file.size) for file in files] == [("set/a.mp4", 2000), ("set/b.mp4", 928)]
    assert ignored == {"(tar cut short)": 1}
    with pytest.raises(
        SourceError, match="open_error: the archive's header gives this member 3,000 bytes, there are 928"
    ):
        read(files[1].uri)


@given(st.data())
def test_damage_anywhere_ends_with_a_count_and_nothing_outside_the_tar_is_named(data: st.DataObject) -> None:
    tar = bytearray(tar_of({"a": b"a" * 600, "ü" * 120: b"b" * 10, "c": b"c" * 100}))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(tar) - 1), st.integers(0, 255)), max_size=6)):
        tar[at] = value
    ignored: Counter[str] = Counter()
    entries = list(tar_entries(lambda at, size: bytes(tar[at : at + size]), 0, len(tar), ignored))
    assert all(0 <= entry.offset <= entry.offset + entry.size <= len(tar) for entry in entries) and len(entries) <= 20


def hostile(kind: str) -> bytes:
    """A tar whose first header asks for too much."""
    if kind == "negative size":
        info = member("a")
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = b"\xff" * 12
        header[148:156] = f"{sum(header[:148]) + 8 * 32 + sum(header[156:512]):06o}\0 ".encode()
        return bytes(header) + bytes(4096)
    if kind == "long name of two megabytes":
        head = member("././@LongLink", 2**21, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
        return head + b"n" * 2**21 + tar_of({"a": b"a"}, tarfile.GNU_FORMAT)
    if kind == "long name of a gigabyte":
        return member("././@LongLink", 2**30, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) + bytes(8192)
    records = {
        "records that lie": b"99 size=5\n",
        "size in words": b"13 size=many\n",
        "record of no length": b"0 size=5\n",
    }
    extended = records[kind]
    header = member("x", len(extended), type=tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    return header + extended.ljust(512, b"\0") + tar_of({"a": b"a"})


@pytest.mark.parametrize(
    "kind",
    [
        "negative size",
        "long name of a gigabyte",
        "long name of two megabytes",
        "records that lie",
        "size in words",
        "record of no length",
    ],
)
def test_a_header_that_asks_for_too_much_is_damage(kind: str) -> None:
    assert listed(hostile(kind)) == ({}, {"(damaged tar)": 1})


def test_a_long_chain_of_long_names_is_walked_in_flat_memory() -> None:
    link = member("././@LongLink", 4, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) + b"name".ljust(
        512, b"\0"
    )
    assert listed(link * 5000 + tar_of({"a": b"a"}, tarfile.GNU_FORMAT)) == ({"name": b"a"}, {})


def test_a_file_that_becomes_shorter_while_it_is_listed_is_damage() -> None:
    data, ignored = tar_of({"a": b"a" * 600, "b": b"b" * 600}), Counter[str]()
    short = data[:1536]
    entries = list(tar_entries(lambda at, size: short[at : at + size], 0, len(data), ignored))
    assert [entry.name for entry in entries] == ["a"] and ignored == {"(damaged tar)": 1}


def test_a_second_tar_behind_the_end_of_the_first_is_said() -> None:
    both = tar_of({"a": b"a"}) + tar_of({"b": b"b"})
    assert listed(both) == ({"a": b"a"}, {"(more after the end of a tar)": 1})


# A folder with tars


def test_files_and_members_are_one_listing_with_keys_that_name_no_tar(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "1.mp4").write_bytes(b"one")
    (tmp_path / "sub" / "b.tar").write_bytes(tar_of({"./x/2.mp4": b"two", "notes.txt": b"", "README": b""}))
    (tmp_path / "sub" / "b").mkdir()
    (tmp_path / "sub" / "b" / "3.mp4").write_bytes(b"three, extracted beside its tar")
    (tmp_path / "c.TAR").write_bytes(tar_of({"3.mp4": b"three"}))
    contents, ignored = found_in(tmp_path)
    assert contents == {
        "1.mp4": b"one", "c/3.mp4": b"three", "sub/b/3.mp4": b"three, extracted beside its tar",
        "sub/b/x/2.mp4": b"two",
    }  # fmt: skip
    assert ignored == {".txt": 1, "(no suffix)": 1}


def test_a_tar_in_a_tar_is_listed_where_it_lies(tmp_path: Path) -> None:
    inner = {f"n0{i}.tar": tar_of({f"n0{i}_{j}.JPEG": bytes([i, j]) for j in range(3)}) for i in range(4)}
    broken = {"broken.tar": b"no tar" * 200, "deep.tar": tar_of({"deeper.tar": tar_of({"a.png": b"a"})})}
    (tmp_path / "all.tar").write_bytes(tar_of(inner | broken | {"top.JPEG": b"top"}))
    contents, ignored = found_in(tmp_path)
    assert contents == {"all/top.JPEG": b"top"} | {
        f"all/n0{i}/n0{i}_{j}.JPEG": bytes([i, j]) for i in range(4) for j in range(3)
    }
    assert ignored == {"(damaged tar)": 1, ".tar": 1}


def test_names_that_lead_elsewhere_are_left_out_and_the_last_of_equal_names_counts(tmp_path: Path) -> None:
    names = ["/etc/a.mp4", "../b.mp4", "x/../../c.mp4", "d.mp4", ".hidden.mp4", "__MACOSX/d.mp4", "./d.mp4", "e//f.mp4"]
    (tmp_path / "set.tar").write_bytes(tar_of([(name, str(i).encode()) for i, name in enumerate(names)]))
    contents, ignored = found_in(tmp_path)
    assert contents == {"set/d.mp4": b"6", "set/e/f.mp4": b"7"}
    assert ignored == {"(unsafe name)": 3, "(earlier copy of a file in a tar)": 1}


def test_a_name_that_is_not_utf8_gets_a_key_that_is(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.mp4"), "café.mp4", "caf%E9.mp4"]
    (tmp_path / "set.tar").write_bytes(tar_of([(name, name.encode("utf-8", "surrogateescape")) for name in names]))
    assert found_in(tmp_path)[0] == {
        "set/caf%E9.mp4": b"caf\xe9.mp4", "set/café.mp4": "café.mp4".encode(), "set/caf%25E9.mp4": b"caf%E9.mp4",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "mode", "advice"),
    [
        ("set.tar.gz", "w:gz", "gunzip"), ("set.tgz", "w:gz", "gunzip"), ("set.tar.bz2", "w:bz2", "bunzip2"),
        ("set.tar.xz", "w:xz", "unxz"), ("set.tar.zst", "w", "unzstd"), ("set.tar", "w:gz", "gunzip"),
    ],
)  # fmt: skip
def test_compressed_tars_are_refused_with_what_to_do(name: str, mode: str, advice: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / name, mode) as tar:  # type: ignore[call-overload]
        tar.addfile(member("a.mp4", 1), io.BytesIO(b"a"))
    message = refusal(tmp_path)
    assert name in message and "compressed" in message and advice in message
    (tmp_path / "a.mp4").write_bytes(b"a")
    if name != "set.tar":
        assert found_in(tmp_path) == ({"a.mp4": b"a"}, {"(compressed tar)": 1})


def test_tars_in_a_bucket_list_like_local_ones_with_few_small_reads(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        tar = tar_of({f"{j}.{suffix}": bytes([i, j]) * size for j in range(9) for suffix, size in KINDS})
        (tmp_path / f"{i}.tar").write_bytes(tar)
        bucket.pipe(f"/bucket/set/{i}.tar", tar)
    fetched, cat = [], type(bucket).cat_file
    whole = {f"/bucket/set/{i}.tar": (tmp_path / f"{i}.tar").stat().st_size for i in range(5)}

    def counting(self: Any, path: str, start: int, end: int) -> bytes:
        assert end <= whole[path]  # some stores refuse a range that goes beyond the file
        fetched.append(end - start)
        return cat(self, path, start, end)

    monkeypatch.setattr(type(bucket), "cat_file", counting)
    there, _ = list_media(DatasetConfig(name="m", layout="folder", root="memory://bucket/set"), MEDIA_SUFFIXES)
    assert len(fetched) <= 5 * 12 and max(fetched) <= 2**15
    here, _ = list_media(DatasetConfig(name="m", layout="folder", root=str(tmp_path)), MEDIA_SUFFIXES)
    assert [(file.key, file.size) for file in there] == [(file.key, file.size) for file in here] and len(here) == 45
    assert found_in("memory://bucket/set") == found_in(tmp_path)


KINDS = (("json", 300), ("mp4", 50_000), ("txt", 20))


def test_headers_are_read_once_and_again_when_the_tar_changes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(tar_index, "Ranges", lambda uri, size: opened.append(uri) or Ranges(uri, size))
    (tmp_path / "a.tar").write_bytes(tar_of({"1.mp4": b"1", "/bad.mp4": b""}))
    first = found_in(tmp_path)
    assert opened and first == ({"a/1.mp4": b"1"}, {"(unsafe name)": 1})
    opened.clear()
    assert found_in(tmp_path) == first and not opened
    (kept,) = (cache / "toto" / "tars").iterdir()
    damaged = bytearray(kept.read_bytes())
    for at in (3, len(damaged) // 2, len(damaged) - 9):
        kept.write_bytes(bytes(damaged[:at]) + bytes([damaged[at] ^ 1]) + bytes(damaged[at + 1 :]))
        assert found_in(tmp_path) == first and opened
        opened.clear()
    kept.write_bytes(damaged[:10])
    assert found_in(tmp_path) == first and opened
    (tmp_path / "a.tar").write_bytes(tar_of({"2.mp4": b"2"}))
    assert found_in(tmp_path)[0] == {"a/2.mp4": b"2"}


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "a.tar").write_bytes(tar_of({"1.mp4": b"1"}))
    assert found_in(tmp_path)[0] == found_in(tmp_path)[0] == {"a/1.mp4": b"1"}


def test_a_store_that_does_not_answer_is_asked_again_and_then_named(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.pipe("/bucket/set/a.tar", tar_of({"1.mp4": b"1"}))
    tries, cat, failing = [], type(bucket).cat_file, [2]

    def moody(self: Any, path: str, start: int, end: int) -> bytes:
        tries.append(path)
        if len(tries) <= failing[0]:
            raise ConnectionError("the store is away")
        return cat(self, path, start, end)

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(type(bucket), "cat_file", moody)
    assert found_in("memory://bucket/set")[0] == {"a/1.mp4": b"1"} and len(tries) > 2
    tries.clear()
    failing[0] = 99
    bucket.pipe("/bucket/set/b.tar", tar_of({"1.mp4": b"1"}))
    assert "b.tar: cannot be read" in refusal("memory://bucket/set") and len(tries) == 1 + len(REMOTE_PAUSES_S)


def test_an_error_in_one_tar_ends_the_reading_of_the_others(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "01":
        bucket.pipe(f"/bucket/set/{name}.tar", tar_of({f"{i}.mp4": bytes(40_000) for i in range(300)}))
    read, cat = [], type(bucket).cat_file

    def slow(self: Any, path: str, start: int, end: int) -> bytes:
        if path.endswith("0.tar"):
            raise PermissionError("not yours")
        time.sleep(0.01)
        read.append(start)
        return cat(self, path, start, end)

    monkeypatch.setattr(type(bucket), "cat_file", slow)
    assert "0.tar: cannot be read" in refusal("memory://bucket/set") and "not yours" in refusal("memory://bucket/set")
    assert len(read) < 300


def test_a_link_to_a_tar_that_is_gone_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "gone.tar").symlink_to(tmp_path / "nowhere.tar")
    assert found_in(tmp_path) == ({"a.mp4": b"a"}, {"(tar that is not there)": 1})


def test_the_real_shard_lists_as_the_standard_library_lists_it(media: Path, tmp_path: Path) -> None:
    (tmp_path / "00000.tar").symlink_to(media / "shards" / "return_all_test.tar")
    files, ignored = list_media(DatasetConfig(name="m", layout="folder", root=str(tmp_path)), MEDIA_SUFFIXES)
    expected = parts_of((tmp_path / "00000.tar").read_bytes(), f"{tmp_path}/00000.tar")
    assert {f.key: f.uri for f in files} == {
        f"00000/{name}": str(part) for name, part in expected.items() if name.endswith(".mp4")
    }
    assert ignored == {".json": 6, ".txt": 6}
    kinds = [list(decode(request(file.uri, stride=100)))[-1].kind for file in files]  # type: ignore[union-attr]
    assert kinds == ["image"] * 3 + ["video"] * 3
