"""`dct`: the embedded tokenizer. No weights, decodes to recognisable pictures, the same ids on every machine.

    RGB 8×8 patch -> YCbCr -> orthonormal DCT -> a few low luma coefficients, mean Cb, mean Cr -> nearest random code

The transform is one matrix of integers applied to uint8 pixels in float64: every product and sum is a whole number
below 2^53, so the result is exact whatever BLAS, thread count or batch size computes it. The codebook is Gaussian
with the spread that these coefficients have on photographs, drawn from NumPy's frozen RandomState stream.
"""

from typing import Any

import numpy as np

from toto.errors import UsageError
from toto.shards.hashing import json_sha256
from toto.tokenize.tokenizers.codebook import TreeCodebook
from toto.tokenize.tokenizers.identity import with_id
from toto.tokenize.tokenizers.net_tokenizer import refuse_no_codes

PATCH = 8
LUMA_ORDER = [
    (0, 0),
    (0, 1),
    (1, 0),
    (1, 1),
    (0, 2),
    (2, 0),
]  # (vertical, horizontal) frequency, lowest first
# Spread of the coefficients, measured on 97 photographs at 128 px: python bench/dct_quality.py prints them.
LUMA_STD = [415.0, 97.0, 112.0, 52.0, 58.0, 62.0]
CHROMA_STD = [144.0, 123.0]
RGB_TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
SCALE = 1 << 16  # fixed-point steps per unit of a coefficient


def make(spec: dict[str, Any], device: str = "cpu") -> "DCT":
    """The tokenizer of a spec; raises UsageError when the codebook's hash differs from the stored one."""
    tokenizer = DCT(spec["vocab_size"], spec["luma_coefficients"], spec["seed"])
    stored = spec.get("codebook_sha256")
    if stored is not None and stored != tokenizer.spec["codebook_sha256"]:
        raise UsageError("dct: the codebook made here is not the one the dataset was made with (its hash differs)")
    return tokenizer


class DCT:
    """Low DCT coefficients of 8×8 patches, each patch its nearest code in a seeded Gaussian codebook."""

    patch = PATCH
    batch = None  # exact arithmetic

    def __init__(self, vocab_size: int, luma_coefficients: int = 3, seed: int = 0) -> None:
        if not 1 <= luma_coefficients <= len(LUMA_ORDER):
            raise UsageError(f"dct: luma_coefficients {luma_coefficients}; allowed: 1 to {len(LUMA_ORDER)}")
        self.vocab_size = vocab_size
        self._basis = _basis(luma_coefficients)  # [192, k], pixel (y, x, channel) -> coefficient
        self._codebook = _codebook(vocab_size, luma_coefficients, seed)  # float64 [vocab, k]
        self._matrix = np.rint(self._basis * SCALE)  # whole numbers
        self._grey = np.rint(np.full(PATCH * PATCH * 3, 128.0) @ self._matrix)
        self._codes = TreeCodebook(self._codebook, settle_ties=False)  # as ids have always been made
        self.spec = with_id(
            {
                "name": "dct",
                "vocab_size": vocab_size,
                "patch": PATCH,
                "luma_coefficients": luma_coefficients,
                "seed": seed,
                "codebook_sha256": json_sha256(self._codebook.tolist()),
            }
        )

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        """uint8 RGB [n, 3, H, W] -> int32 codes [n, H / 8, W / 8]; exact, independent of batch and threads."""
        n, _, height, width = pictures.shape
        grid_h, grid_w = height // PATCH, width // PATCH
        patches = pictures.reshape(n, 3, grid_h, PATCH, grid_w, PATCH).transpose(0, 2, 4, 3, 5, 1)
        vectors = patches.reshape(n * grid_h * grid_w, 3 * PATCH * PATCH).astype(np.float64)
        coefficients = (vectors @ self._matrix - self._grey) / SCALE
        return self._codes.nearest(coefficients).astype(np.int32).reshape(n, grid_h, grid_w)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int codes [n, h, w] -> uint8 RGB [n, 3, 8 h, 8 w]; ValueError for what is no code."""
        refuse_no_codes(codes, self.vocab_size)
        n, grid_h, grid_w = codes.shape
        vectors = self._codebook[codes.reshape(-1)] @ _inverse(self._basis.shape[1] - 2)
        patches = vectors.reshape(n, grid_h, grid_w, PATCH, PATCH, 3) + 128.0
        pictures = patches.transpose(0, 5, 1, 3, 2, 4).reshape(n, 3, grid_h * PATCH, grid_w * PATCH)
        return np.clip(np.rint(pictures), 0, 255).astype(np.uint8)


def _dct_vectors() -> np.ndarray:
    """Orthonormal DCT-II: [frequency, pixel]."""
    k = np.arange(PATCH)
    rows = np.cos((2 * k[None, :] + 1) * k[:, None] * np.pi / (2 * PATCH)) * np.sqrt(2 / PATCH)
    rows[0] /= np.sqrt(2)
    return rows


def _planes(luma_coefficients: int) -> list[tuple[int, int, int]]:
    """(YCbCr channel, vertical, horizontal frequency) of each coefficient."""
    return [(0, *frequency) for frequency in LUMA_ORDER[:luma_coefficients]] + [(1, 0, 0), (2, 0, 0)]


def _basis(luma_coefficients: int) -> np.ndarray:
    dct = _dct_vectors()
    columns = [
        np.einsum("y,x,c->yxc", dct[v], dct[u], RGB_TO_YCBCR[channel]) for channel, v, u in _planes(luma_coefficients)
    ]
    return np.stack([column.reshape(-1) for column in columns], axis=1)


def _inverse(luma_coefficients: int) -> np.ndarray:
    """[k, 192]: coefficients -> RGB pixels (y, x, channel) around mid-grey."""
    dct, to_rgb = _dct_vectors(), np.linalg.inv(RGB_TO_YCBCR)
    rows = [np.einsum("y,x,c->yxc", dct[v], dct[u], to_rgb[:, channel]) for channel, v, u in _planes(luma_coefficients)]
    return np.stack([row.reshape(-1) for row in rows])


def _codebook(vocab_size: int, luma_coefficients: int, seed: int) -> np.ndarray:
    """Rounded to 1/256, so that a last digit of another machine's libm cannot change the codebook."""
    spread = np.array([*LUMA_STD[:luma_coefficients], *CHROMA_STD])
    draws = np.random.RandomState(seed).standard_normal((vocab_size, len(spread)))
    return np.rint(draws * spread * 256) / 256
