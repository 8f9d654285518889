"""Scaling: planes where a picture shrinks, interleaved RGB elsewhere; the numbers are those of interleaved RGB."""

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from hypothesis import given, settings
from hypothesis import strategies as st

from toto.tokenize.resize import FILTER, Orientation, Resizer

FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "nv12", "gray", "rgb24", "rgba", "pal8")


@given(
    st.sampled_from(FORMATS), st.integers(2, 90), st.integers(2, 200), st.integers(1, 90), st.integers(1, 90),
    st.integers(0, 1 << 32),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_frames_of_any_format_and_size_scale_as_straight_to_interleaved_rgb(
    pixel_format: str, width: int, height: int, to_width: int, to_height: int, seed: int
) -> None:
    frame = noise(pixel_format, width, height, seed)
    scaled = Resizer((to_width, to_height), Orientation())(frame)
    np.testing.assert_array_equal(scaled, straight(frame, to_width, to_height))


@pytest.mark.parametrize("height", [159, 160, 161, 255, 256, 360, 1080])
def test_where_it_turns_to_planes_the_numbers_stay(height: int) -> None:
    frame = noise("yuv420p", 640, height, height)
    np.testing.assert_array_equal(Resizer((228, 128), Orientation())(frame), straight(frame, 228, 128))


def noise(pixel_format: str, width: int, height: int, seed: int) -> av.VideoFrame:
    """Noise shows every rounding, and the odd sizes every border."""
    rng = np.random.default_rng(seed)
    frame = av.VideoFrame(width, height, pixel_format)
    for plane in frame.planes:
        values = rng.integers(0, 256, plane.buffer_size, dtype=np.uint8)
        plane.update(values.view(np.uint16) & 1023 if "10" in pixel_format else values)
    return frame


def straight(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3]: what swscale makes of it in one step."""
    return VideoReformatter().reformat(frame, width, height, "rgb24", interpolation=FILTER, threads=1).to_ndarray()
