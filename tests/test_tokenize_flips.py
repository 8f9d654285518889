"""`flips`: every view once more, mirrored, so that pictures and their codes need not be mirrored by a reader."""

from pathlib import Path

import numpy as np
import pytest
from clips import write_image, write_video
from footage import read
from made import DCT, make, pixels
from PIL import Image

from toto import Dataset
from toto.shards.flags import Flag
from toto.shards.look.clips import Painter, choose
from toto.shards.look.originals import Originals, under
from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream


@pytest.mark.parametrize(("crop", "views"), [("random", 3), ("center", 1), ("three", 3), ("full", 1), ("squash", 1)])
def test_the_second_half_of_the_views_mirrors_the_first(tmp_path: Path, crop: str, views: int) -> None:
    video = write_video(tmp_path / "a.mp4", 20, size=(60, 40))
    asked = {"crop": crop, "pixels": 24, "resolution": 16}
    plain, _ = read(video, views=views, **asked)
    flipped, _ = read(video, views=2 * views, flips=True, **asked)
    upright = {(block.view, int(block.index[0])): block for block in plain}
    for block in flipped:
        assert block.mirrored == (block.view >= views)
        twin = upright[block.view % views, int(block.index[0])]
        step = -1 if block.mirrored else 1
        assert block.frames is not None and twin.frames is not None
        assert block.pixels is not None and twin.pixels is not None
        assert np.array_equal(block.frames[:, :, ::step], twin.frames) and block.crop == twin.crop
        assert np.array_equal(block.pixels[:, :, ::step], twin.pixels)
    assert len(flipped) == 2 * len(plain)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    """(folder, dataset): a video and a picture, two random crops each, and their mirror images."""
    folder = tmp_path_factory.mktemp("flips")
    write_video(folder / "videos" / "a.mp4", 40, size=(60, 40))
    write_image(folder / "videos" / "b.png")
    asked = {"crop": "random", "views": 2, "flips": True, "run_frames": 16}
    return folder, make(folder / "videos", folder / "set", DCT, **asked)


def test_every_run_has_as_many_rows_and_mirrored_ones_say_so(made: tuple[Path, Dataset]) -> None:
    _, dataset = made
    assert (dataset.views, dataset.base_views, dataset.info["settings"]["views"]) == (4, 2, 4)
    rows = list(dataset.rows())
    assert [row.view for row in rows] == [0, 1, 2, 3] * (len(rows) // 4) and len(rows) == 12
    for start in range(0, len(rows), 4):
        for row, twin in zip(rows[start : start + 2], rows[start + 2 : start + 4], strict=True):
            assert row.crop == twin.crop and row.row_id != twin.row_id
            assert np.array_equal(pixels(row), pixels(twin)[:, :, ::-1])
            assert (row.flags & Flag.MIRRORED, twin.flags & Flag.MIRRORED) == (0, Flag.MIRRORED)
    assert not any(flags & Flag.MIRRORED for flags in dataset.sources()["flags"].to_pylist())


def test_codes_of_a_mirrored_view_are_those_of_the_mirrored_picture(tmp_path: Path) -> None:
    picture = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[:, None], (16, 16, 3))  # dark on the left
    for name, shown in (("turned", picture[:, ::-1]), ("upright", picture)):
        Image.fromarray(np.ascontiguousarray(shown)).save(tmp_path / f"{name}.png")
    dataset = make(tmp_path, tmp_path / "set", DCT, flips=True)
    turned, upright = ([row.codes.tolist() for row in dataset.frames(f"{name}.png")] for name in ("turned", "upright"))
    assert upright == turned[::-1] and upright[0] != upright[1]


def test_the_upright_views_are_the_rows_of_a_dataset_without_flips(made: tuple[Path, Dataset], tmp_path: Path) -> None:
    folder, dataset = made
    plain = make(folder / "videos", tmp_path / "set", DCT, crop="random", views=2, run_frames=16)
    known = {row.row_id: row.tokens.tolist() for row in dataset.rows()}
    assert all(known[row.row_id] == row.tokens.tolist() for row in plain.rows()) and len(plain) == 6


def test_training_draws_mirrored_views_too(made: tuple[Path, Dataset]) -> None:
    _, dataset = made
    stream = Stream(make_recipe([("mine", str(dataset.store.uri), 1, None)], 4, 1, 0, 8, kinds=("video",)))
    assert {clip.row.view for g in range(60) for clip in stream.sequence(g).clips} == {0, 1, 2, 3}


def test_a_viewer_shows_the_source_mirrored_beside_a_mirrored_row(made: tuple[Path, Dataset]) -> None:
    folder, dataset = made
    painter = Painter(dataset, Originals(under(str(folder / "videos"))))
    row, twin = (painter.clip(pick) for pick in choose(dataset, [0, 2], [], None, 1, 1))
    assert row.beside is not None and twin.beside is not None
    assert all(np.array_equal(a, b[:, ::-1]) for a, b in zip(row.beside, twin.beside, strict=True))
