"""Nearest code of a codebook, exactly: what argmin over all distances gives, ties to the lowest index.

Few dimensions (dct, sdvae): a k-d tree, 40 times as fast as all distances of 32,768 codes of 4 dimensions.
Many (vqgan, 256): all distances by float32 matrix products, tile by tile; where the best two are so close that rounding
could have swapped them, that vector is searched again in float64. So no batch, thread count or device changes a code.
"""

from typing import Any

import numpy as np

TILE_CODES = 4096  # of one matrix product
AGAIN_ROWS = 256  # vectors of one search in float64
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
        self._norms = self.codes.square().sum(1)  # float32 [n]
        self._longest = self._norms.max().sqrt()

    def nearest(self, vectors: Any) -> Any:
        """torch float [m, d] -> int64 [m]."""
        import torch

        vectors = vectors.float()
        best = None
        for start in range(0, len(self.codes), TILE_CODES):
            tile = slice(start, start + TILE_CODES)
            scores = torch.addmm(self._norms[tile], vectors, self.codes[tile].t(), alpha=-2)  # distance² - |vector|²
            values, found = scores.topk(min(2, scores.shape[1]), dim=1, largest=False)
            found = found + start
            if best is not None:
                values, found = torch.cat([best[0], values], 1), torch.cat([best[1], found], 1)
                values, order = values.topk(2, dim=1, largest=False)
                found = found.gather(1, order)
            best = values, found
        assert best is not None
        nearest = best[1][:, 0].clone()
        for rows in self._unsure(vectors, best[0]).split(AGAIN_ROWS):
            nearest[rows] = self._by_float64(vectors[rows])
        return nearest

    def _unsure(self, vectors: Any, two_best: Any) -> Any:
        """int64 indices of vectors whose two best scores lie within the rounding error of float32."""
        import torch

        epsilon, terms = torch.finfo(torch.float32).eps, self.codes.shape[1] + 8
        slack = 2 * terms * epsilon * self._longest * (2 * vectors.norm(dim=1) + self._longest)
        return torch.nonzero(two_best[:, -1] - two_best[:, 0] <= slack)[:, 0]

    def _by_float64(self, vectors: Any) -> Any:
        codes = self.codes.double()
        return (codes.square().sum(1) - 2 * vectors.double() @ codes.t()).argmin(1)


def gaussian_codes(vocab_size: int, dimensions: int, seed: int) -> np.ndarray:
    """float64 [vocab, d] of mean 0 and variance 1, from NumPy's frozen RandomState stream.

    Rounded to 2^-16, so that the last digit of another machine's libm cannot change the codebook.
    """
    draws = np.random.RandomState(seed).standard_normal((vocab_size, dimensions))
    return np.rint(draws * 65536) / 65536
