"""Full-size pictures for viewers: the frames that a row names, cut where the row was cut; and videos written."""

from pathlib import Path

import av
import numpy as np
import pytest
from footage import number_of, numbered, read, write
from PIL import Image

from toto.errors import UserError
from toto.media import frames, write_video


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(write(tmp_path / "clip.mov", numbered(60)))


def test_frames_come_by_decoded_index_in_the_order_asked_for(clip: str) -> None:
    assert [number_of(frame) for frame in frames(clip, [40, 3, 3, 0])] == [40, 3, 3, 0]


def test_frames_come_by_time_as_they_are_on_screen(clip: str) -> None:
    assert [number_of(frame) for frame in frames(clip, [0.0, 0.04, 0.079, 1.0])] == [0, 1, 1, 25]


def test_a_rows_index_and_crop_lead_back_to_its_source(tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (32, 80, 3), dtype=np.uint8)
    path = write(tmp_path / "a.mov", [photo] * 3)
    [block], _ = read(path, crop="random", resolution=32, seed=1)
    assert block.frames is not None
    found = frames(str(path), [int(i) for i in block.index], block.crop)
    assert np.array_equal(np.stack(found), block.frames), "32 is the short side: nothing was resized"


def test_pictures_are_turned_upright(media: Path) -> None:
    [picture] = frames(str(media / "image_hard" / "n02951585_can_opener.JPEG"), [0])
    assert picture.shape == (392, 294, 3)


@pytest.mark.parametrize("times", [[60], [5, 99], [-1.0]])
def test_a_frame_that_is_not_there_is_named(clip: str, times: list[float]) -> None:
    with pytest.raises(UserError, match=f"no frame {max(times, key=abs)}"):
        frames(clip, times)


def test_a_missing_source_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        frames(str(tmp_path / "gone.mp4"), [0])


def test_a_written_video_shows_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    ramp = [np.full((33, 47, 3), 8 * i, np.uint8) for i in range(20)]
    write_video(ramp, path, fps=7.5)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate == 7.5
    assert [frame.shape for frame in shown] == [(34, 48, 3)] * 20, "H.264 needs even sides"
    assert np.abs(np.array([frame.mean() for frame in shown]) - 8 * np.arange(20)).max() < 4


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no frame"):
        write_video([], tmp_path / "out.mp4", fps=25)
    Image.new("RGB", (4, 4)).save(tmp_path / "other.png")
    assert [path.name for path in tmp_path.iterdir()] == ["other.png"]
