"""A member of a tar is a source like any file: same blocks, same errors, and never a byte of its neighbours."""

import gc
import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from archives import parts_of, tar_of
from clips import write_image, write_video
from footage import numbered, pictures, read, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from toto.tokenize import part as parts
from toto.tokenize.clip import SourceError
from toto.tokenize.input_file import check, local_path, open_binary
from toto.tokenize.part import PartFile


def reason(uri: str, kind: str = "video") -> tuple[str, str]:
    """Why a part cannot be decoded."""
    with pytest.raises(SourceError) as failed:
        read(uri, kind=kind)
    return failed.value.reason, failed.value.detail


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> a video or picture; the index of the MP4 is at its end, so that reading it seeks."""
    folder = tmp_path_factory.mktemp("originals")
    return {
        "a/clip.mov": write(folder / "clip.mov", numbered(40)),
        "a/late.mp4": write_video(folder / "late.mp4", 30),
        "b.png": write_image(folder / "b.png"),
    }


def put(files: Any, content: bytes, where: str, tmp_path: Path) -> str:
    """The URI of a file with this content."""
    if where == "memory":
        files.pipe("/bucket/set.tar", content)
        return "memory://bucket/set.tar"
    (tmp_path / "set.tar").write_bytes(content)
    return ("file://" if where == "file" else "") + str(tmp_path / "set.tar")


@pytest.mark.parametrize("where", ["local", "file", "memory", "memory, in pieces"])
def test_a_member_gives_the_blocks_of_the_file_itself(
    where: str, originals: dict[str, Path], bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where.endswith("pieces"):
        monkeypatch.setattr(parts, "WHOLE_BYTES", 0)
    content = tar_of({name: path.read_bytes() for name, path in originals.items()})
    uri = put(bucket, content, where.partition(",")[0], tmp_path)
    members = {name: str(part) for name, part in parts_of(content, uri).items()}
    for name, path in originals.items():
        kind = "image" if name.endswith(".png") else "video"
        check(members[name])
        assert local_path(members[name]) is None
        (blocks, info), (expected, facts) = (read(u, kind=kind, key="x", run_frames=16) for u in (members[name], path))
        assert info == facts and len(blocks) == len(expected) > 0
        assert [block.crop for block in blocks] == [block.crop for block in expected]
        assert np.array_equal(pictures(blocks), pictures(expected))


@given(st.lists(st.tuples(st.sampled_from("rse"), st.integers(-5, 40)), max_size=12))
def test_a_part_reads_like_a_file_of_its_bytes_and_never_beyond_them(steps: list[tuple[str, int]]) -> None:
    files, content = fsspec.filesystem("memory"), bytes(range(33))
    tar = tar_of([("before", b"\xff" * 600), ("it.mp4", content), ("after", b"\xff" * 600)])
    files.pipe("/parts/set.tar", tar)
    expected = io.BytesIO(content)
    with PartFile(parts_of(tar, "memory://parts/set.tar")["it.mp4"]) as file:
        assert file.name == "part.mp4"
        for step, number in steps:
            if step == "r":
                assert file.read(number) == expected.read(number)
            else:
                base = {"s": 0, "e": 33}[step]
                assert file.seek(number, 2 if step == "e" else 0) == expected.seek(max(0, base + number))
            assert file.tell() == expected.tell()


def test_of_a_store_exactly_the_header_and_the_bytes_are_fetched(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = tar_of([("a", bytes(1000)), ("b.mp4", b"x" * 700), ("c", bytes(5000))])
    bucket.pipe("/bucket/set.tar", tar)
    asked, cat = [], type(bucket).cat_file
    monkeypatch.setattr(
        type(bucket),
        "cat_file",
        lambda self, path, start, end: asked.append((start, end)) or cat(self, path, start, end),
    )
    with open_binary(str(parts_of(tar, "memory://bucket/set.tar")["b.mp4"])) as file:
        assert file.read() == b"x" * 700
    assert asked == [(1536, 2748)]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_tar_that_was_changed_since_it_was_listed_is_told(where: str, bucket: Any, tmp_path: Path) -> None:
    members = [("a.mp4", bytes(2000)), ("b.mp4", bytes(3000))]
    uri = put(bucket, tar_of(members), where, tmp_path)
    part = str(parts_of(tar_of(members), uri)["b.mp4"])
    with open_binary(part) as file:
        assert file.read() == bytes(3000)
    put(bucket, tar_of(members)[:4000], where, tmp_path)
    assert reason(part) == ("open_error", "the archive ends 2,072 bytes too early; was it changed?")
    put(bucket, tar_of([("a.mp4", bytes(2000)), ("b.mp4", bytes(2999))]), where, tmp_path)
    assert reason(part) == ("open_error", "byte 3072 of set.tar begins another member; was it changed?")
    put(bucket, tar_of([("c.mp4", bytes(9000))]), where, tmp_path)
    assert reason(part) == ("open_error", "byte 3072 of set.tar begins no member; was it changed?")
    put(bucket, b"x", where, tmp_path)
    assert reason(part)[0] == "open_error"
    bucket.rm("/bucket/set.tar") if where == "memory" else (tmp_path / "set.tar").unlink()
    assert reason(part)[0] == "missing"
    assert reason(str(parts_of(tar_of({"a.mp4": b""}), uri)["a.mp4"]))[0] in ("missing", "empty")


@pytest.mark.parametrize(
    "name", ["{}.bmp", "a name of more than a hundred letters " * 4 + "{}.bmp", "\N{KANGXI RADICAL ONE}{}.bmp"]
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_of_the_same_size_is_never_taken_for_another(name: str, form: int, tmp_path: Path) -> None:
    first, second = ((name.format(x), bytes([ord(x)] * 700)) for x in "ab")
    path = tmp_path / "set.tar"
    path.write_bytes(tar_of([first, second], form))
    listed = parts_of(path.read_bytes(), str(path))
    with open_binary(str(listed[second[0]])) as file:
        assert file.read() == second[1]
    path.write_bytes(tar_of([second, first], form))
    for part in listed.values():
        found, detail = reason(str(part), "image")
        assert found == "open_error" and detail.endswith("begins another member; was it changed?")


def test_a_member_that_the_tar_is_too_short_for_is_told(tmp_path: Path) -> None:
    tar = tar_of({"a.mp4": bytes(3000)})
    (tmp_path / "set.tar").write_bytes(tar[:1512])
    part = parts_of(tar, f"{tmp_path}/set.tar")["a.mp4"]
    assert reason(str(replace(part, size=1000))) == (
        "open_error",
        "the archive's header gives this member 3,000 bytes, there are 1,000",
    )


def test_a_picture_under_a_videos_name_is_a_picture_also_in_a_tar(tmp_path: Path) -> None:
    picture = write_image(tmp_path / "b.png")
    one = tmp_path / "one.mp4"
    one.write_bytes(picture.read_bytes())
    tar = tar_of({"one.mp4": picture.read_bytes()})
    (tmp_path / "set.tar").write_bytes(tar)
    for uri in (one, str(parts_of(tar, f"{tmp_path}/set.tar")["one.mp4"])):
        blocks, info = read(uri)
        assert (info.kind, info.codec, info.frames_kept) == ("image", "png", 1)
        assert np.array_equal(pictures(blocks), pictures(read(picture, kind="image")[0]))


@pytest.mark.parametrize("name", ["a.mjpeg", "a.mp4"])
def test_a_stream_of_jpegs_is_still_a_video(name: str, tmp_path: Path) -> None:
    for kind, source in {
        "flat": numbered(5),
        "noise": np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)),
    }.items():
        path = tmp_path / kind / name  # FFmpeg takes the one for a stream, the other for a row of pictures
        path.parent.mkdir()
        with open(path, "wb") as file:
            for picture in source:
                Image.fromarray(picture.astype(np.uint8)).save(file, "JPEG")
        _, info = read(path)
        assert (info.kind, info.frames_decoded) == ("video", 5)


def test_decoding_parts_leaves_no_file_open(originals: dict[str, Path], tmp_path: Path) -> None:
    data = originals["a/late.mp4"].read_bytes()
    tar = tar_of({"a.mp4": data, "b.mp4": data[:200]})
    (tmp_path / "set.tar").write_bytes(tar)
    whole, cut = (str(parts_of(tar, f"{tmp_path}/set.tar")[name]) for name in ("a.mp4", "b.mp4"))
    gc.collect()  # what other tests' tracebacks hold
    before = len(os.listdir("/dev/fd"))
    for _ in range(3):
        read(whole)
        assert reason(cut)[0] == "open_error"
    gc.collect()
    assert len(os.listdir("/dev/fd")) == before
