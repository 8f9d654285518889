"""Decoding in one process: which pixels come out, from files of every odd kind."""

import itertools
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from footage import number_of, numbered, pictures, read, request, write
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from toto.shards.flags import Flag
from toto.tokenize.clip import Block, SourceError
from toto.tokenize.decode import decode
from toto.tokenize.decode_image import to_rgb
from toto.tokenize.probe import probe
from toto.tokenize.resize import from_matrix


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 numbered frames, 48 x 32, 25 a second."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mov", numbered(150))


@pytest.fixture
def photo() -> np.ndarray:
    """uint8 RGB [60, 90, 3] without symmetry."""
    return np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)


def reason_of(path: Path, **changes: object) -> str:
    with pytest.raises(SourceError) as failed:
        list(decode(request(path, **changes)))
    return failed.value.reason


# which frames, in which order


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"stride": 4}, list(range(0, 150, 4))),
        ({"stride": None, "fps": 5.0}, list(range(0, 150, 5))),
        ({"stride": None, "uniform": 7}, [0, 25, 50, 74, 99, 124, 149]),
    ],
)
def test_frames_carry_their_index_time_and_picture(clip: Path, rule: dict[str, float], expected: list[int]) -> None:
    blocks, info = read(clip, **rule)
    assert [number_of(frame) for frame in pictures(blocks)] == expected
    assert [i for block in blocks for i in block.index] == expected
    assert [t for block in blocks if block.pts_us is not None for t in block.pts_us] == [40_000 * i for i in expected]
    assert (info.frames_decoded, info.frames_kept, info.fps) == (150, len(expected), pytest.approx(25))


def test_the_last_frames_of_a_video_with_b_frames_have_times_too(tmp_path: Path) -> None:
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for picture in numbered(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    blocks = [part for part in decode(request(path)) if isinstance(part, Block)]
    times = np.concatenate([block.pts_us for block in blocks if block.pts_us is not None])
    assert times.tolist() == [i * 40_000 for i in range(30)]


def test_more_uniform_frames_than_the_source_has_are_repeated_and_flagged(tmp_path: Path) -> None:
    blocks, info = read(write(tmp_path / "short.mov", numbered(3)), stride=None, uniform=5)
    assert [number_of(frame) for frame in pictures(blocks)] == [0, 0, 1, 2, 2]
    assert (info.frames_decoded, info.frames_kept, info.flags) == (3, 5, Flag.REPEATED)


def test_the_frame_on_screen_is_kept_where_the_rate_varies(tmp_path: Path) -> None:
    times_ms = [0, 40, 80, 500, 540]
    blocks, _ = read(write(tmp_path / "vfr.mkv", numbered(5), times_ms), stride=None, fps=10.0)
    assert [number_of(frame) for frame in pictures(blocks)] == [0, 2, 2, 2, 2, 3]


def test_blocks_come_run_by_run_with_their_views_in_a_row(clip: Path) -> None:
    blocks, _ = read(clip, crop="random", views=3)
    shape = [(block.run, block.view, len(block.index)) for block in blocks]
    assert [run for run, _, _ in shape] == sorted(run for run, _, _ in shape)
    assert [view for _, view, _ in shape] == [0, 1, 2] * (len(shape) // 3)
    assert Counter(run for run, view, n in shape for _ in range(n) if view == 0) == {0: 64, 1: 64, 2: 22}
    assert max(n for _, _, n in shape) == 16
    for _, same in itertools.groupby(sorted(blocks, key=lambda b: (b.run, b.view)), lambda b: (b.run, b.view)):
        assert len({block.crop for block in same}) == 1, "one crop for a run"


@given(stride=st.integers(1, 70), run_frames=st.integers(1, 40))
def test_every_kept_frame_comes_once_in_each_view(clip: Path, stride: int, run_frames: int) -> None:
    blocks, info = read(clip, stride=stride, run_frames=run_frames, crop="three", views=3)
    for view in range(3):
        found = [i for block in blocks if block.view == view for i in block.index]
        assert found == list(range(0, 150, stride))
    assert info.frames_kept == len(range(0, 150, stride))


# which pixels


def one_frame(path: Path, picture: np.ndarray) -> Path:
    return write(path, [picture])


@pytest.mark.parametrize("crop", ["random", "center", "full", "squash"])
def test_a_png_equals_the_same_picture_as_a_one_frame_video(tmp_path: Path, photo: np.ndarray, crop: str) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    video = one_frame(tmp_path / "a.mov", photo)
    asked = {"key": "a", "crop": crop, "resolution": 32}
    from_image, _ = read(tmp_path / "a.png", kind="image", **asked)
    from_video, _ = read(video, **asked)
    assert np.array_equal(pictures(from_image), pictures(from_video))


def test_kept_pixels_show_the_crop_of_the_frames(tmp_path: Path, photo: np.ndarray) -> None:
    video = one_frame(tmp_path / "a.mov", photo)
    blocks, _ = read(video, crop="random", views=5, resolution=20, patch=4, pixels=60)
    for block in blocks:
        x, y, w, h = block.crop
        assert block.frames is not None and block.pixels is not None
        assert block.frames.shape == (1, 20, 20, 3)
        assert np.array_equal(block.pixels[0], photo[y : y + h, x : x + w]), "60 is the short side: nothing is resized"


def test_pixels_alone_are_given_when_no_codes_are_wanted(clip: Path) -> None:
    blocks, _ = read(clip, pixels=16, codes=False)
    assert all(block.frames is None and block.pixels is not None for block in blocks)


def test_frames_equal_the_reference_pictures_of_another_decoder(media: Path) -> None:
    """The PNGs beside the clip come from Android's decoder."""
    video = media / "video_hard" / "testvid_1022ms.mp4"
    blocks, _ = read(video, crop="squash", resolution=360, patch=8, stride=14)
    for number, frame in zip((0, 14), pictures(blocks), strict=False):
        with Image.open(video.with_name(f"testvid_1022ms_{number:03d}.png")) as reference:
            expected, _ = read(reference.filename, kind="image", crop="squash", resolution=360)
        assert np.abs(frame.astype(int) - pictures(expected)[0]).mean() < 1


def test_colour_range_tags_are_obeyed(media: Path) -> None:
    """The same luma values with two tags: equal RGB would mean that the tag is ignored."""
    full, limited = (
        pictures(read(media / "video_hard" / f"bt601_{name}_range.mp4")[0]).astype(int) for name in ("full", "limited")
    )
    assert np.abs(full - limited).mean() > 5


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 17), (2, 100)])
def test_odd_and_tiny_sizes_come_out_at_the_asked_size(tmp_path: Path, size: tuple[int, int]) -> None:
    blocks, info = read(write(tmp_path / "tiny.mov", numbered(2, size)))
    assert pictures(blocks).shape == (2, 16, 16, 3)
    assert (info.width, info.height) == size


@pytest.mark.parametrize("name", ["vp90-2-05-resize.mp4", "av1-1-b8-03-sizeup.mp4"])
def test_frames_that_change_size_come_out_alike(media: Path, name: str) -> None:
    blocks, info = read(media / "video_hard" / name)
    assert (info.width, info.height) == (352, 288)
    assert pictures(blocks).shape[1:] == (16, 16, 3)
    if name.startswith("vp90"):  # the other one changes the scene with the size
        assert np.abs(np.diff(pictures(blocks).astype(int), axis=0)).mean((1, 2, 3)).max() < 5


# upright


TURNS = {  # display matrix (a, b, c, d) -> what it does to a picture with y pointing down
    (1, 0, 0, 1): lambda p: p,
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("matrix", TURNS)
def test_every_turn_and_mirror_is_undone(photo: np.ndarray, matrix: tuple[int, int, int, int]) -> None:
    a, b, c, d = (65536 * value for value in matrix)
    turned = from_matrix(a, b, 0, c, d)
    assert np.array_equal(turned.apply(photo), TURNS[matrix](photo))
    assert turned.upright((90, 60)) == TURNS[matrix](photo).shape[1::-1]


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0, 0), (-(2**31), 7, 0, 2**31 - 1, 0), (46341, 46341, 0, -46341, 46341)])
def test_nonsense_matrices_leave_the_picture_as_it_is(matrix: tuple[int, int, int, int, int]) -> None:
    assert not from_matrix(*matrix)


def test_a_turned_video_equals_its_upright_twin(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "turned.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 60, 90, "rgb24"
        stream.set_display_rotation(90)
        coded = np.ascontiguousarray(np.rot90(photo, -1))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(coded, format="rgb24")))
        container.mux(stream.encode())
    twin = one_frame(tmp_path / "upright.mov", photo)
    asked = {"key": "a", "crop": "random", "seed": 3, "resolution": 60, "patch": 4}
    turned, info = read(path, **asked)
    assert np.array_equal(pictures(turned), pictures(read(twin, **asked)[0]))
    assert (info.width, info.height, info.flags) == (90, 60, Flag.ROTATED)


def test_exif_orientation_is_applied_before_the_crop(media: Path) -> None:
    folder = media / "image_hard"
    upright, _ = read(folder / "Landscape_1.jpg", kind="image", key="a", crop="random", resolution=64)
    turned, info = read(folder / "Landscape_6.jpg", kind="image", key="a", crop="random", resolution=64)
    assert turned[0].crop == upright[0].crop
    assert info.flags == Flag.ROTATED
    assert np.abs(pictures(turned).astype(int) - pictures(upright)).mean() < 3


# pictures of every kind


def test_colour_modes_become_rgb(tmp_path: Path, photo: np.ndarray) -> None:
    base = Image.fromarray(photo)
    for mode in ("L", "LA", "P", "RGBA", "1", "CMYK", "YCbCr"):
        assert to_rgb(base.convert(mode)).mode == "RGB", mode
    alpha = base.convert("RGBA")
    alpha.putalpha(0)
    assert np.array_equal(np.asarray(to_rgb(alpha)), photo), "alpha is dropped, not blended"
    with pytest.raises(SourceError, match="unsupported: colour mode La"):
        to_rgb(Image.new("La", (4, 4)))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, suffix: str) -> None:
    grey = np.linspace(0, 65_535, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / f"deep{suffix}")
    blocks, _ = read(tmp_path / f"deep{suffix}", kind="image")
    assert np.array_equal(pictures(blocks)[0, :, :, 0], np.arange(256).reshape(16, 16))


def animation(path: Path, frames: int, duration: int = 50) -> Path:
    first, *rest = [Image.fromarray(frame) for frame in numbered(frames)]
    lossless = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=duration, **lossless)
    return path


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation_is_a_video_only_where_that_is_asked(tmp_path: Path, suffix: str) -> None:
    path = animation(tmp_path / f"moving{suffix}", 5)
    blocks, info = read(path, kind="image", stride=2)
    assert (info.kind, info.frames_decoded, info.frames_kept, info.fps) == ("video", 5, 3, pytest.approx(20))
    assert [number_of(frame) for frame in pictures(blocks)] == [0, 2, 4]
    assert [t for block in blocks if block.pts_us is not None for t in block.pts_us] == [0, 100_000, 200_000]
    _, still = read(path, kind="image", animated=False)
    assert (still.kind, still.frames_kept) == ("image", 1)


def test_a_gif_in_a_hurry_is_shown_as_browsers_do(tmp_path: Path) -> None:
    _, info = read(animation(tmp_path / "fast.gif", 3, duration=0), kind="image")
    assert info.fps == pytest.approx(10)


def test_pages_of_a_tiff_are_no_video(media: Path) -> None:
    _, info = read(media / "image_hard" / "multipage.tiff", kind="image")
    assert (info.kind, info.frames_kept) == ("image", 1)


# damage and malice


def test_a_cut_video_keeps_its_prefix_and_says_so(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "cut.mov"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    blocks, info = read(path)
    assert 16 <= info.frames_decoded < 150
    assert [number_of(frame) for frame in pictures(blocks)] == list(range(info.frames_decoded))
    assert info.flags & Flag.SALVAGED and info.detail


def test_missing_empty_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(tmp_path / "nowhere.mp4") == "missing"
    assert reason_of(tmp_path / "text.mp4" / "below.mp4") == "missing"
    assert reason_of(tmp_path / "empty.mp4") == "empty"
    assert reason_of(tmp_path / "text.mp4") == "open_error"
    assert reason_of(tmp_path / "folder.mp4") == "open_error"
    assert reason_of(tmp_path / "text.mp4", kind="image") == "open_error"


@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile 'secret.mov'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mov\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
    ],
)
def test_a_playlist_named_as_a_video_reaches_no_other_file(tmp_path: Path, script: str) -> None:
    write(tmp_path / "secret.mov", numbered(3))
    (tmp_path / "harmless.mp4").write_text(script)
    assert reason_of(tmp_path / "harmless.mp4") == "open_error"
    assert probe(str(tmp_path / "harmless.mp4"), "video") is None


def test_ffmpeg_would_have_followed_the_concat_script(tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    write(tmp_path / "secret.mov", numbered(3))
    (tmp_path / "harmless.mp4").write_text("ffconcat version 1.0\nfile 'secret.mov'\n")
    with av.open(str(tmp_path / "harmless.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3


def test_sizes_that_would_exhaust_memory_are_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    Image.new("L", (650, 10)).save(tmp_path / "thread.png")
    assert reason_of(tmp_path / "bomb.png", kind="image") == "unsupported"
    assert reason_of(tmp_path / "thread.png", kind="image") == "unsupported"


@pytest.mark.parametrize("name", ["-i.mov", "a:b.mov", "100%d.mov", "http:x.mov", "umlaut-\xfc.mov", "odd-\udcff.mov"])
def test_names_are_never_taken_for_options_patterns_or_protocols(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "plain.mov", numbered(2)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert read(name)[1].frames_kept == 2


def test_remote_files_decode_as_local_ones(clip: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/clip.mov", clip.read_bytes())
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    memory.pipe("/bucket/a.png", (tmp_path / "a.png").read_bytes())
    remote, _ = read("memory://bucket/clip.mov", crop="random", key="a")
    assert np.array_equal(pictures(remote), pictures(read(clip, crop="random", key="a")[0]))
    assert read("memory://bucket/a.png", kind="image")[1].frames_kept == 1
    assert reason_of(Path("memory://bucket/gone.mov")) == "missing"


def test_wrong_requests_are_refused() -> None:
    for wrong in (
        {"stride": None},
        {"fps": 5.0},
        {"views": 2},
        {"crop": "three"},
        {"crop": "zoom"},
        {"codes": False},
    ):
        with pytest.raises(ValueError, match="clip"):
            request("clip", **wrong)


def test_headers_tell_frames_and_size_without_decoding(clip: Path, tmp_path: Path) -> None:
    found = probe(str(clip), "video")
    assert found is not None
    assert (found.frames, found.width, found.height, found.codec) == (150, 48, 32, "png")
    moving = probe(str(animation(tmp_path / "a.gif", 5)), "image")
    assert moving is not None and moving.frames == 5
    assert probe(str(tmp_path / "gone.mp4"), "video") is None


@pytest.mark.parametrize("rule", [{"stride": 3}, {"stride": None, "fps": 7.5}])
def test_a_source_of_which_the_first_frames_are_wanted_is_read_no_further(clip: Path, rule: dict[str, object]) -> None:
    whole, facts = read(clip, run_frames=None, **rule)
    few, told = read(clip, run_frames=None, most_frames=5, **rule)
    assert np.array_equal(pictures(few), pictures(whole)[:5])
    assert told.frames_kept == 5 and told.frames_decoded < 30 < facts.frames_decoded == 150
    assert read(clip, run_frames=None, most_frames=500, **rule)[1] == facts
