"""The nearest code is the one that argmin over all distances names; where float32 decides, the one taming names."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
@given(st.integers(2, 300), st.integers(1, 40), st.integers(0, 1000))
def test_products_give_what_brute_force_gives(count: int, dimensions: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-3, 4, (count, dimensions)).astype(np.float32)
    vectors = (rng.integers(-6, 7, (100, dimensions)) / 2).astype(np.float32)
    found = product(codes).nearest(torch.from_numpy(vectors)).numpy()
    assert (found == brute_force(codes, vectors)).all()  # whole numbers: float32 is exact


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_a_difference_that_float32_loses_is_decided_as_taming_decides(scale: float) -> None:
    """Pairs of codes so close that float32 products rank them at random."""
    from taming.modules.vqvae.quantize import VectorQuantizer2

    rng = np.random.default_rng(0)
    half = rng.standard_normal((500, 256)).astype(np.float32)
    codes = np.concatenate([half, half + rng.standard_normal(half.shape).astype(np.float32) * 3e-7])
    vectors = (half[:64] + rng.standard_normal((64, 256)) * 0.1).astype(np.float32)
    codes, vectors = (codes * scale).astype(np.float32), (vectors * scale).astype(np.float32)
    found = product(codes).nearest(torch.from_numpy(vectors)).numpy()
    quantize = VectorQuantizer2(*codes.shape, beta=0.25)
    quantize.embedding.weight.data = torch.from_numpy(codes)
    tamings = quantize(torch.from_numpy(vectors).t()[None, :, :, None])[2][2].numpy()
    assert (found == tamings).all() and (brute_force(codes, vectors) != found).any()


def test_the_gaussian_codebook_is_frozen() -> None:
    codes = gaussian_codes(32_768, 4, 0)
    assert codes[0].tolist() == [1.7640533447265625, 0.4001617431640625, 0.9787445068359375, 2.2408905029296875]
    assert abs(codes.mean()) < 0.01 and abs(codes.std() - 1) < 0.01 and len(np.unique(codes, axis=0)) == 32_768
