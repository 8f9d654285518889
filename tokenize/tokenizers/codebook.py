"""Nearest code of a codebook: argmin over all distances, ties to the lowest index.

Few dimensions (dct, sdvae): a k-d tree, 40 times as fast as all distances of 32,768 codes of 4 dimensions; exact.
Many (vqgan, 256): all distances by a float32 matrix product, rounded as taming's VectorQuantizer2 rounds them, so that
codes which float32 cannot tell apart are chosen as taming chooses.
"""

from typing import Any

import numpy as np

NEAR_TIE = 1e-12  # of float64 distances: whichever the tree names first, argmin decides


class TreeCodebook:
    """Codes in few dimensions, searched on the CPU.

    `settle_ties` costs a quarter more: without it, of codes that are equally near the tree's first one is taken, always
    the same one.
    """

    def __init__(self, codes: np.ndarray, settle_ties: bool = True) -> None:
        self._settle_ties = settle_ties
        self.codes = np.asarray(codes, np.float64)  # [n, d]
        self._tree: Any = None  # built at the first search: scipy takes 0.1 s to import

    def nearest(self, vectors: np.ndarray) -> np.ndarray:
        """float [m, d] -> int64 [m]."""
        if self._tree is None:
            from scipy.spatial import cKDTree

            self._tree = cKDTree(self.codes)
        vectors = np.asarray(vectors, np.float64)
        if not self._settle_ties:
            return self._tree.query(vectors)[1]
        distances, found = self._tree.query(vectors, k=2)
        nearest = found[:, 0]
        gaps = distances[:, 1] - distances[:, 0]
        for row in np.flatnonzero(gaps <= NEAR_TIE * distances[:, 1]):
            nearest[row] = np.square(self.codes - vectors[row]).sum(1).argmin()
        return nearest


class ProductCodebook:
    """Codes in many dimensions, searched where they lie: on the CPU or on a GPU."""

    def __init__(self, codes: Any) -> None:
        self.codes = codes.float()  # torch [n, d]
        self._norms = self.codes.square().sum(1)

    def nearest(self, vectors: Any) -> Any:
        """torch float32 [m, d] -> int64 [m]; of one picture: the number of rows may change a product's last bits."""
        import torch

        products = torch.einsum("bd,dn->bn", vectors, self.codes.t())
        distances = vectors.square().sum(1, keepdim=True) + self._norms
        return distances.sub_(products, alpha=2).argmin(1)


def gaussian_codes(vocab_size: int, dimensions: int, seed: int) -> np.ndarray:
    """float64 [vocab, d] of mean 0 and variance 1, from NumPy's frozen RandomState stream.

    Rounded to 2^-16, so that the last digit of another machine's libm cannot change the codebook.
    """
    draws = np.random.RandomState(seed).standard_normal((vocab_size, dimensions))
    return np.rint(draws * 65536) / 65536
