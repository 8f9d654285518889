"""Colours, patterns and backgrounds: random numbers in, uint8 pictures out.

pattern(rng, size)  float [size, size] in 0…1, coarse: one to three periods across
colour(pattern)     two inks of different lightness mixed by it
background(rng)     a soft gradient with blotches; nothing in it moves
patchwork(rng)      tiles of random inks; its edges fit together, so that it can slide round and round
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops

Colour = tuple[int, int, int]

INKS: dict[str, Colour] = {
    "coral": (231, 90, 70),
    "amber": (246, 178, 60),
    "teal": (30, 140, 140),
    "navy": (38, 70, 110),
    "plum": (120, 60, 120),
    "mint": (130, 205, 165),
    "sky": (90, 170, 222),
    "cream": (250, 240, 215),
    "charcoal": (50, 50, 60),
    "rose": (242, 150, 172),
    "olive": (128, 140, 60),
    "brick": (160, 60, 50),
}
GROUNDS: tuple[tuple[Colour, Colour], ...] = (
    ((226, 208, 180), (196, 170, 140)),  # sand
    ((112, 127, 142), (70, 85, 102)),  # slate
    ((192, 208, 182), (140, 166, 140)),  # sage
    ((152, 132, 172), (92, 86, 132)),  # dusk
    ((206, 226, 236), (158, 190, 210)),  # ice
    ((204, 154, 128), (160, 110, 94)),  # clay
    ((62, 72, 98), (34, 40, 60)),  # night
    ((188, 188, 182), (140, 140, 134)),  # stone
)
MIN_CONTRAST = 60  # difference of luma between the two inks of a texture, of 255


def luma(colour: tuple[float, float, float]) -> float:
    """BT.601 luma, 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def two_inks(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Two inks whose luma differs by at least MIN_CONTRAST."""
    inks = list(INKS.values())
    first = inks[rng.integers(len(inks))]
    others = [ink for ink in inks if abs(luma(ink) - luma(first)) >= MIN_CONTRAST]
    return first, others[rng.integers(len(others))]


def noise(rng: np.random.Generator, cells: int, size: tuple[int, int]) -> np.ndarray:
    """Smooth noise, float32 [height, width] in 0…1, `cells` blotches across; size is (width, height)."""
    grid = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) / 255


def _soft_step(wave: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(5 * wave)


def _stripes(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _soft_step(np.sin(rng.uniform(4, 7) * u))


def _checks(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    rate = rng.uniform(3.5, 5)
    return _soft_step(2 * np.sin(rate * u) * np.sin(rate * v))


def _dots(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    rate = rng.uniform(5, 7)
    return _soft_step(np.cos(rate * u) + np.cos(rate * v) - 0.7)


def _rings(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    # Off centre: rings around the middle would look the same however the object turns.
    return _soft_step(np.sin(rng.uniform(5, 7) * np.hypot(u - 0.7, v - 0.3)))


def _waves(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _soft_step(np.sin(rng.uniform(4, 6) * (u + 0.25 * np.sin(4 * v))))


def _halves(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return _soft_step(2 * (u - rng.uniform(-0.2, 0.2)))


def _patches(rng: np.random.Generator, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    side = len(u)
    return _soft_step(6 * (noise(rng, 4, (side, side)) - 0.5))


PATTERNS: tuple[Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray], ...] = (
    _stripes,
    _checks,
    _dots,
    _rings,
    _waves,
    _halves,
    _patches,
)


def pattern(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random pattern, turned and shifted at random: float [size, size] in 0…1."""
    line = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(line, line)
    turn = rng.uniform(0, 2 * np.pi)
    shift_u, shift_v = rng.uniform(-0.4, 0.4, 2)
    u = np.cos(turn) * x + np.sin(turn) * y + shift_u
    v = -np.sin(turn) * x + np.cos(turn) * y + shift_v
    return PATTERNS[rng.integers(len(PATTERNS))](rng, u.astype(np.float32), v.astype(np.float32))


def mix(low: Colour, high: Colour, amount: np.ndarray) -> np.ndarray:
    """Colour `low` where amount is 0, `high` where it is 1: uint8 [height, width, 3]."""
    start, end = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return np.clip(start + amount[..., None] * (end - start), 0, 255).astype(np.uint8)


def textured(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random pattern in two random inks: uint8 [size, size, 3]."""
    first, second = two_inks(rng)
    return mix(first, second, pattern(rng, size))


def background(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A soft gradient with blotches, RGB, size (width, height)."""
    width, height = size
    bright, dark = GROUNDS[rng.integers(len(GROUNDS))]
    turn = rng.uniform(0, 2 * np.pi)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    slope = 0.5 + 0.3 * (np.cos(turn) * x + np.sin(turn) * y)
    blotches = noise(rng, 6, size) + 0.5 * noise(rng, 14, size) - 0.75
    return Image.fromarray(mix(bright, dark, slope + 0.45 * blotches))


def patchwork(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Tiles of a quarter of the height in random inks, anywhere on a torus: RGB, size (width, height).

    Neighbours say nothing of each other: only the frame before helps to predict a place.
    """
    width, height = size
    inks = np.array(list(INKS.values()), np.uint8)
    columns = max(1, round(4 * width / height))
    tiles = Image.fromarray(inks[rng.integers(0, len(inks), (4, columns))])
    across, down = (int(rng.integers(side)) for side in size)
    return ImageChops.offset(tiles.resize(size, Image.Resampling.NEAREST), across, down)
