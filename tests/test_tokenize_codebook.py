"""The nearest code is the one that argmin over all distances names, whatever the batch, the threads or the tiles."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from toto.tokenize.tokenizers import codebook
from toto.tokenize.tokenizers.codebook import ProductCodebook, TreeCodebook, gaussian_codes


def brute_force(codes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Argmin over all squared distances in float64: ties go to the lowest index."""
    return np.stack([np.square(codes.astype(np.float64) - v.astype(np.float64)).sum(1).argmin() for v in vectors])


def product(codes: np.ndarray) -> ProductCodebook:
    return ProductCodebook(torch.from_numpy(codes))


@settings(max_examples=15)
@given(st.integers(2, 300), st.integers(1, 6), st.integers(0, 1000))
def test_the_tree_gives_what_brute_force_gives(count: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, vectors = rng.integers(-3, 4, (count, dimensions)), rng.integers(-6, 7, (100, dimensions)) / 2
    assert (TreeCodebook(codes).nearest(vectors) == brute_force(codes, vectors)).all()  # a lattice: ties everywhere


@settings(max_examples=15)
@given(st.integers(2, 300), st.integers(1, 40), st.integers(0, 1000), st.sampled_from([2, 7, 4096]))
def test_products_give_what_brute_force_gives(count: int, dimensions: int, seed: int, tile: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-3, 4, (count, dimensions)).astype(np.float32)
    vectors = (rng.integers(-6, 7, (100, dimensions)) / 2).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codebook, "TILE_CODES", tile)
        found = product(codes).nearest(torch.from_numpy(vectors)).numpy()
    assert (found == brute_force(codes, vectors)).all()


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_a_difference_that_float32_loses_is_found(scale: float) -> None:
    """Pairs of codes so close that float32 products rank them at random."""
    rng = np.random.default_rng(0)
    half = rng.standard_normal((500, 256)).astype(np.float32)
    codes = np.concatenate([half, half + rng.standard_normal(half.shape).astype(np.float32) * 3e-7])
    vectors = (half[:64] + rng.standard_normal((64, 256)) * 0.1).astype(np.float32)
    codes, vectors = (codes * scale).astype(np.float32), (vectors * scale).astype(np.float32)
    found = product(codes).nearest(torch.from_numpy(vectors)).numpy()
    rounded = torch.cdist(torch.from_numpy(vectors), torch.from_numpy(codes)).argmin(1).numpy()
    assert (found == brute_force(codes, vectors)).all() and (rounded != found).any()


def test_one_vector_alone_has_the_code_that_it_has_among_others() -> None:
    rng = np.random.default_rng(1)
    codes = product(rng.standard_normal((1024, 256)).astype(np.float32) * 0.01)
    vectors = torch.from_numpy(rng.standard_normal((300, 256)).astype(np.float32))
    assert torch.equal(codes.nearest(vectors), torch.cat([codes.nearest(v[None]) for v in vectors]))


def test_the_gaussian_codebook_is_frozen() -> None:
    codes = gaussian_codes(32_768, 4, 0)
    assert codes[0].tolist() == [1.7640533447265625, 0.4001617431640625, 0.9787445068359375, 2.2408905029296875]
    assert abs(codes.mean()) < 0.01 and abs(codes.std() - 1) < 0.01 and len(np.unique(codes, axis=0)) == 32_768
