"""The outlines of the demo world's shapes: polygons in a circle of radius 1, x to the right and y down."""

import math

Point = tuple[float, float]


def _around(corners: int, inner: float = 1.0) -> list[Point]:
    """A regular polygon; a star when `inner`, every second corner's distance, is below 1."""
    steps = corners if inner == 1 else 2 * corners
    radii = [1.0 if step % 2 == 0 else inner for step in range(steps)]
    turns = [2 * math.pi * step / steps - math.pi / 2 for step in range(steps)]
    return [(r * math.cos(turn), r * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]


def _heart() -> list[Point]:
    turns = [2 * math.pi * step / 60 for step in range(60)]
    across = [16 * math.sin(turn) ** 3 for turn in turns]
    down = [-13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t) for t in turns]
    return [(x / 18.2, (y - 2.5) / 18.2) for x, y in zip(across, down, strict=True)]


def _moon() -> list[Point]:
    """A disc less another one beside it."""
    outer = [math.radians(60 + 240 * step / 40) for step in range(41)]
    inner = [math.radians(270 - 180 * step / 40) for step in range(1, 40)]
    edge = [(math.cos(turn), math.sin(turn)) for turn in outer]
    hollow = [(0.5 + 0.62 * math.cos(turn), 0.866 * math.sin(turn)) for turn in inner]
    return [(0.92 * x + 0.12, 0.92 * y) for x, y in edge + hollow]


def _cross() -> list[Point]:
    """Four arms, each a quarter turn from the last."""
    arm = [(-0.33, -0.94), (0.33, -0.94), (0.33, -0.33)]
    quarters = ((1, 0), (0, 1), (-1, 0), (0, -1))
    return [(x * cos - y * sin, x * sin + y * cos) for cos, sin in quarters for x, y in arm]


def _flower() -> list[Point]:
    turns = [2 * math.pi * step / 80 for step in range(80)]
    radii = [0.78 + 0.2 * math.cos(6 * turn) for turn in turns]
    return [(r * math.cos(turn), r * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]


SHAPES: dict[str, list[Point]] = {
    "disc": _around(64),
    "square": [(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)],
    "triangle": _around(3),
    "star": _around(5, 0.48),
    "heart": _heart(),
    "moon": _moon(),
    "cross": _cross(),
    "hexagon": _around(6),
    "arrow": [(0, -1), (0.72, -0.1), (0.3, -0.1), (0.3, 0.92), (-0.3, 0.92), (-0.3, -0.1), (-0.72, -0.1)],
    "flower": _flower(),
}
