"""Where crops lie: inside the source, the same picture at every resolution, drawn by name and never by order."""

import numpy as np
import pytest
from footage import request
from hypothesis import given
from hypothesis import strategies as st

from toto.tokenize.clip import CROPS, Box, Size
from toto.tokenize.crop import boxes, cut_size, scaled_size, window

sizes = st.tuples(st.integers(1, 3000), st.integers(1, 3000)).filter(lambda s: max(s) <= 64 * min(s))
views = {"random": 3, "three": 3}


@given(sizes, st.sampled_from(CROPS), st.sampled_from([16, 24, 128]), st.integers(0, 5))
def test_boxes_and_cuts_lie_inside(source: Size, crop: str, resolution: int, run: int) -> None:
    asked = request("a.mp4", crop=crop, resolution=resolution, views=views.get(crop, 1))
    width, height = scaled_size(asked, source, resolution)
    picture = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
    for x, y, w, h in boxes(asked, source, run):
        assert 0 <= x and 0 <= y and w >= 1 and h >= 1 and x + w <= source[0] and y + h <= source[1]
        size = cut_size(asked, source, resolution)
        assert picture[window(picture.shape, (x, y, w, h), source, size)].shape == (size[1], size[0], 3)
        assert size[0] % asked.patch == size[1] % asked.patch == 0


@given(sizes, st.integers(0, 2**32), st.integers(0, 9))
def test_a_random_crop_shows_the_same_place_at_every_resolution(source: Size, seed: int, run: int) -> None:
    small, large = (request("a.mp4", crop="random", resolution=r, views=4, seed=seed) for r in (16, 128))
    assert boxes(small, source, run) == boxes(large, source, run)


def drawn(**changes: object) -> Box:
    return boxes(request(**({"path": "a.mp4", "crop": "random"} | changes)), (4000, 1000), 0)[0]


def test_a_random_crop_is_keyed_by_seed_source_run_and_view() -> None:
    same = drawn()
    assert drawn() == same
    others = [drawn(seed=1), drawn(key="b.mp4"), boxes(request("a.mp4", crop="random"), (4000, 1000), 1)[0]]
    others.append(boxes(request("a.mp4", crop="random", views=2), (4000, 1000), 0)[1])
    assert len({same, *others}) == 5


def test_random_crops_stay_what_they_were() -> None:
    """Pinned when first written: a dataset's rows depend on these numbers."""
    found = boxes(request("a.mp4", crop="random", views=3, seed=7), (340, 256), 2)
    assert found == [(82, 0, 256, 256), (48, 0, 256, 256), (76, 0, 256, 256)]


def test_random_crops_reach_both_ends_evenly() -> None:
    starts = [boxes(request("a.mp4", crop="random"), (340, 256), run)[0][0] for run in range(2000)]
    assert (min(starts), max(starts)) == (0, 84)
    assert abs(np.mean(starts) - 42) < 2


@pytest.mark.parametrize(
    ("source", "places"),
    [((340, 256), [(0, 0), (42, 0), (84, 0)]), ((100, 300), [(0, 0), (0, 100), (0, 200)])],
)
def test_three_crops_are_the_two_ends_and_the_middle(source: Size, places: list[tuple[int, int]]) -> None:
    assert [box[:2] for box in boxes(request("a", crop="three", views=3), source, 0)] == places


def test_full_floors_both_sides_to_whole_patches_around_the_centre() -> None:
    asked = request("a", crop="full", resolution=128, patch=8)
    assert scaled_size(asked, (854, 480), 128) == (228, 128)
    assert cut_size(asked, (854, 480), 128) == (224, 128)
    assert boxes(asked, (854, 480), 0) == [(7, 0, 839, 480)]
    assert cut_size(asked, (854, 480), 256) == (448, 256), "the same picture, twice the size"


def test_squash_keeps_the_whole_picture() -> None:
    asked = request("a", crop="squash", resolution=64)
    assert scaled_size(asked, (854, 480), 64) == (64, 64)
    assert boxes(asked, (854, 480), 0) == [(0, 0, 854, 480)]
