"""`frames:FOLDER`: a folder of pictures decodes as one video, whose frames keep the numbers of their pictures."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from footage import number_of, numbered, pictures, read, request
from PIL import Image

from toto.shards.flags import Flag
from toto.shards.look.originals import Originals, under
from toto.tokenize.clip import Block, SourceError, SourceInfo
from toto.tokenize.decode import decode
from toto.tokenize.decoder import Decoder
from toto.tokenize.probe import probe


def write_folder(folder: Path, count: int, suffix: str = ".png") -> str:
    """Numbered pictures 00000 …; the folder's URI."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(numbered(count)):
        Image.fromarray(picture).save(folder / f"{i:05d}{suffix}")
    return f"frames:{folder}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures."""
    write_folder(tmp_path / "seq", 12)
    return tmp_path / "seq"


def indices(blocks: list[Block]) -> list[int]:
    return [int(i) for block in blocks for i in block.index]


def test_the_pictures_of_a_folder_are_the_frames_of_one_video(folder: Path) -> None:
    blocks, info = read(f"frames:{folder}")
    assert [number_of(frame) for frame in pictures(blocks)] == indices(blocks) == list(range(12))
    assert all(block.pts_us is None for block in blocks)
    assert (info.kind, info.codec, info.width, info.height, info.fps) == ("video", "png", 48, 32, None)
    assert (info.frames_decoded, info.errors, info.flags, info.duration_s) == (12, 0, 0, None)


def test_order_is_by_name_and_what_is_no_picture_is_passed_over(folder: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / ".00000.png").write_bytes(b"hidden")
    (folder / "more").mkdir()
    (folder / "00000.png").rename(folder / "zz.PNG")
    blocks, _ = read(f"frames:{folder}/", stride=4)
    assert [number_of(frame) for frame in pictures(blocks)] == [1, 5, 9]


def test_a_damaged_picture_is_counted_and_the_frames_behind_it_keep_their_numbers(folder: Path) -> None:
    (folder / "00003.png").write_bytes((folder / "00003.png").read_bytes()[:60])
    (folder / "00007.png").write_bytes(b"")
    blocks, info = read(f"frames:{folder}")
    assert indices(blocks) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert [number_of(frame) for frame in pictures(blocks)] == indices(blocks)
    assert (info.frames_decoded, info.errors, info.flags) == (10, 2, Flag.SALVAGED)
    assert info.detail.startswith("00003.png: ")


def test_the_next_frame_stands_in_for_a_damaged_one_that_was_asked_for(folder: Path) -> None:
    (folder / "00003.png").write_bytes(b"no picture")
    blocks, info = read(f"frames:{folder}", stride=None, positions=(0, 3, 11))
    assert indices(blocks) == [0, 4, 11] and info.frames_kept == 3


def test_the_first_picture_decides_the_size(folder: Path) -> None:
    Image.fromarray(np.full((64, 200, 3), (5, 0, 7), np.uint8)).save(folder / "00005.png")
    blocks, info = read(f"frames:{folder}", crop="squash")
    assert pictures(blocks).shape == (12, 16, 16, 3) and (info.width, info.height) == (48, 32)
    assert number_of(pictures(blocks)[5]) == 5


def test_jpegs_come_out_as_pillow_reads_them(tmp_path: Path) -> None:
    uri = write_folder(tmp_path / "seq", 3, ".jpg")
    blocks, info = read(uri, resolution=32, patch=8, crop="full")
    assert info.codec == "jpeg"
    for frame, i in zip(pictures(blocks), range(3), strict=True):
        assert np.array_equal(frame[0, 0], np.asarray(Image.open(tmp_path / "seq" / f"{i:05d}.jpg"))[0, 0])


def test_a_folder_in_a_store_is_read_as_one_on_disk(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(f"{folder}/", "bucket/seq/", recursive=True)
    try:
        there, here = read("frames:memory://bucket/seq"), read(f"frames:{folder}")
        assert np.array_equal(pictures(there[0]), pictures(here[0])) and there[1] == here[1]
        assert probe("frames:memory://bucket/seq", "video") == probe(f"frames:{folder}", "video")
    finally:
        store.rm("bucket", recursive=True)


@pytest.mark.parametrize(("name", "reason"), [("gone", "missing"), ("bare", "empty"), ("bad", "decode_error")])
def test_a_folder_that_gives_no_frame_has_its_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "00000.jpg").write_bytes(b"no picture")
    with pytest.raises(SourceError) as failed:
        list(decode(request(f"frames:{tmp_path / name}")))
    assert failed.value.reason == reason


def test_an_animated_picture_gives_its_first_frame(tmp_path: Path) -> None:
    (tmp_path / "seq").mkdir()
    frames = [Image.fromarray(picture) for picture in numbered(3)]
    frames[1].save(tmp_path / "seq" / "00000.png", save_all=True, append_images=frames[2:])
    blocks, _ = read(f"frames:{tmp_path / 'seq'}")
    assert indices(blocks) == [0] and number_of(pictures(blocks)[0]) == 1


def test_the_header_says_how_many_there_are(folder: Path) -> None:
    found = probe(f"frames:{folder}", "video")
    assert found is not None and (found.frames, found.width, found.height, found.codec) == (12, 48, 32, "png")
    assert probe(f"frames:{folder}/gone", "video") is None


def test_the_decoding_child_reads_folders_and_mirrors_too(folder: Path) -> None:
    asked = request(f"frames:{folder}", views=2, flips=True, stride=None, positions=(2, 5))
    with Decoder(timeout_s=30, memory_mb=4096) as decoder:
        *blocks, info = decoder.decode(asked)
    assert isinstance(info, SourceInfo) and info.frames_decoded == 12
    assert [(b.view, b.mirrored, b.index.tolist()) for b in blocks if isinstance(b, Block)] == [
        (0, False, [2, 5]),
        (1, True, [2, 5]),
    ]


def test_frames_beyond_the_end_are_told(folder: Path) -> None:
    blocks, info = read(f"frames:{folder}", stride=None, positions=(4, 12, 40))
    assert indices(blocks) == [4] and info.detail == "2 of 3 wanted frames lie beyond the last one"


def test_a_viewer_finds_the_pictures_by_the_name_of_their_folder(folder: Path) -> None:
    originals = Originals(under(str(folder.parent)))
    shown = originals.frames("seq", [3, 9], (0, 0, 48, 32))
    assert shown is not None and [number_of(frame) for frame in shown] == [3, 9] and originals.note is None
