"""Pixels as patches, for models that read or regress them (paper §4.1, Table 3: patch-patch, patch-dVAE).

    uint8 frames [n, H, W, 3] ─to_patches─▶ uint8 [n, h·w, p·p·3] ─normalised─▶ inputs ─standardised─▶ targets

One patch covers what one code covers, in the same raster order. Values are in the order of MAE's patchify: row, column,
channel. The paper calls them "patch-normalized" after MAE and gives no more; both steps are those of its code.
"""

import numpy as np

MEAN = np.array([0.485, 0.456, 0.406], np.float32)  # of ImageNet, RGB, of values in 0 … 1
STD = np.array([0.229, 0.224, 0.225], np.float32)
TINY = np.float32(1e-6)


def to_patches(frames: np.ndarray, patch: int) -> np.ndarray:
    """uint8 [n, H, W, 3] -> uint8 [n, H/p · W/p, p·p·3]; H and W must be multiples of p."""
    n, height, width, _ = frames.shape
    rows, columns = height // patch, width // patch
    cut = frames.reshape(n, rows, patch, columns, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(n, rows * columns, patch * patch * 3)


def to_frames(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The way back: [n, h·w, p·p·3] -> [n, h·p, w·p, 3] of the same type."""
    n, patch = len(patches), round((patches.shape[-1] / 3) ** 0.5)
    joined = patches.reshape(n, *grid, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return joined.reshape(n, grid[0] * patch, grid[1] * patch, 3)


def normalised(patches: np.ndarray) -> np.ndarray:
    """uint8 [..., p·p·3] -> float32 of the same shape: 0 … 1, less ImageNet's mean, over its standard deviation."""
    channels = patches.reshape(*patches.shape[:-1], -1, 3)
    scale, shift = 1 / (255 * STD), -MEAN / STD
    return (channels * scale + shift).reshape(patches.shape)


def standardised(patches: np.ndarray) -> np.ndarray:
    """float32 [..., p·p·3]: each patch less its mean, over the root of its unbiased variance + 1e-6 (MAE's target)."""
    variance = patches.var(-1, keepdims=True, ddof=1)
    return (patches - patches.mean(-1, keepdims=True)) / np.sqrt(variance + TINY)
