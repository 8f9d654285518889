"""Patches beside codes: the pixels that each code stands for, and the way back."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from token_world import Image, Video, write_tokens

from toto.errors import UserError
from toto.shards.recipe import make_recipe
from toto.shards.stream import Stream
from toto.shards.streaming.patches import normalised, standardised, to_frames, to_patches

GRID, PATCH = (2, 3), 4


def pictures(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, GRID[0] * PATCH, GRID[1] * PATCH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos and images with the pixels of short side 8 beside 2 × 3 codes; two views alike."""
    videos = [
        Video(f"{i}.mp4", np.full((n, *GRID), i), runs=(n - 9, 9), views=2, pixels=pictures(n, i))
        for i, n in enumerate((21, 40, 18, 33))
    ]
    images = [Image(f"{i}.png", np.full(GRID, i), views=2, pixels=pictures(1, 100 + i)) for i in range(14)]
    root = tmp_path_factory.mktemp("pixels") / "set"
    return write_tokens(
        root, videos, images, unit_sources=3, batch_bytes=400, crop="full", keep_pixels=PATCH * min(GRID)
    )


@pytest.mark.parametrize("stride", [4, 8])
def test_the_patches_of_a_sequence_are_the_pixels_of_its_frames(world: Path, stride: int) -> None:
    recipe = make_recipe([("world", str(world), 1, None)], 3, stride, 0, 8)
    stream = Stream(recipe, pixels=PATCH)
    batch = stream.sequences(range(40))
    assert (batch.tokens == Stream(recipe).sequences(range(40)).tokens).all()
    assert batch.pixels is not None and batch.pixels.shape == (40, stream.context, 3 * PATCH**2)
    assert {sequence.part for sequence in batch} == {"world:video", "world:image"}
    for sequence, pixels in zip(batch, batch.pixels, strict=True):
        frames = to_frames(pixels.reshape(3, -1, 3 * PATCH**2), GRID)
        shown = np.concatenate([clip.row.pixels[clip.positions] for clip in sequence.clips])
        assert (frames == shown).all()
    assert batch.patches.dtype == batch.patch_targets.dtype == np.float32
    assert (batch.patches == normalised(batch.pixels)).all()


@given(arrays(np.uint8, (2, *(side * PATCH for side in GRID), 3)))
def test_patches_go_back_to_pixels(frames: np.ndarray) -> None:
    patches = to_patches(frames, PATCH)
    assert patches.shape == (2, 6, 48) and (to_frames(patches, GRID) == frames).all()
    top_right = frames[1, :PATCH, 2 * PATCH :]  # row after row, pixel after pixel, as a code stands in the raster
    assert (patches[1, 2] == top_right.reshape(-1)).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_inputs_and_targets_are_those_of_mae(seed: int) -> None:
    """Against torch: what MAE's loader and its forward_loss compute, written down from its paper's code."""
    frames = pictures(2, seed)
    patches = normalised(to_patches(frames, PATCH))
    images = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = ((images - mean) / std).reshape(2, 3, GRID[0], PATCH, GRID[1], PATCH)
    expected = torch.einsum("nchpwq->nhwpqc", x).reshape(2, 6, -1)
    torch.testing.assert_close(torch.from_numpy(patches), expected, rtol=1e-5, atol=1e-5)
    target = (expected - expected.mean(-1, keepdim=True)) / (expected.var(-1, keepdim=True) + 1e-6) ** 0.5
    torch.testing.assert_close(torch.from_numpy(standardised(patches)), target, rtol=1e-4, atol=1e-4)


def test_patches_that_do_not_stand_for_codes_are_refused_with_those_that_do(world: Path, tmp_path: Path) -> None:
    recipe = make_recipe([("world", str(world), 1, None)], 3, 4, 0, 8)
    with pytest.raises(UserError, match="short side 8, but 2×3 patches of 3 pixels, .* take 6; patches of 4 would fit"):
        Stream(recipe, pixels=3).sequence(0)
    bare = write_tokens(tmp_path, [Video("x", np.zeros((9, *GRID), int))])
    recipe = make_recipe([("world", str(bare), 1, None)], 3, 4, 0, 8)
    with pytest.raises(UserError, match="keeps no pixels; tokenize it with keep_pixels: 8"):
        Stream(recipe, pixels=PATCH).sequence(0)
    with pytest.raises(ValueError, match=r"open it as Stream\(recipe, pixels=p\)"):
        Stream(recipe).sequences(range(2)).patches  # noqa: B018
