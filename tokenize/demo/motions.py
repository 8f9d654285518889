"""The motion classes, and tracks: where an object is at each frame.

A class changes ONE of an object's x, y, angle and log radius at a steady rate, wrapping around; the others
rest. All four start uniform over their whole range, so at every frame they are uniform and independent in
every class: a single frame says nothing about the class, two frames do. Classes come in pairs, each the other
played backwards.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from toto.lazy import cached_property
from toto.tokenize.demo.sprites import Pose, touches


@dataclass(frozen=True)
class Motion:
    """One class: its label, the coordinate it changes (x, y, angle, radius) and the sign of the change."""

    label: str
    axis: str
    sign: int


MOTIONS: tuple[Motion, ...] = (
    Motion("sliding left", "x", -1),
    Motion("sliding right", "x", +1),
    Motion("rising", "y", -1),
    Motion("falling", "y", +1),
    Motion("turning (clockwise)", "angle", +1),
    Motion("turning (counterclockwise)", "angle", -1),
    Motion("coming closer", "radius", +1),
    Motion("moving away", "radius", -1),
)

# Per frame; x and y in picture heights, angle in radians, radius in its logarithm. Over four frames (the
# paper's stride) that is 8 pixels of a 64-pixel picture, one code, so that a model of two minutes finds where a
# thing went; 17 to 26 degrees; 8 to 12 %.
RATES = {"x": (0.0308, 0.0317), "y": (0.0308, 0.0317), "angle": (0.075, 0.1125), "radius": (0.02, 0.03)}
RADII = (0.2, 0.4)  # of the picture's height
MARGIN = 0.08  # how far beyond the edge a centre goes before it comes in on the other side, in heights


class Track(Protocol):
    """Where an object is."""

    def at(self, frame: int) -> Sequence[Pose]:
        """The object's poses that touch the picture: none when it is away, two or more while it wraps."""
        ...


@dataclass(frozen=True)
class Arena:
    """The ranges that wrapping tracks live in, for a picture of `size` (width, height)."""

    size: tuple[int, int]

    @cached_property
    def periods(self) -> dict[str, float]:
        """Length of each coordinate's range: pixels, pixels, radians, log radius."""
        width, height = self.size
        margin = 2 * MARGIN * height
        spread = math.log(RADII[1] / RADII[0])
        return {"x": width + margin, "y": height + margin, "angle": 2 * math.pi, "radius": spread}

    def pose(self, fractions: dict[str, float]) -> Pose:
        """The pose at these fractions (0…1) of each coordinate's range."""
        at = {axis: fraction % 1 * self.periods[axis] for axis, fraction in fractions.items()}
        edge = MARGIN * self.size[1]
        radius = RADII[0] * self.size[1] * math.exp(at["radius"])
        return Pose(at["x"] - edge, at["y"] - edge, radius, at["angle"])


@dataclass(frozen=True)
class WrappedTrack:
    """One coordinate changes steadily and wraps; `start` and `rate` (per frame) are fractions of ranges."""

    arena: Arena
    start: dict[str, float]
    axis: str
    rate: float

    def pose(self, frame: int) -> Pose:
        """The object's main pose, its centre inside the arena."""
        moved = {self.axis: self.start[self.axis] + self.rate * frame}
        return self.arena.pose({**self.start, **moved})

    def at(self, frame: int) -> list[Pose]:
        """The pose and its copies one period away that touch the picture."""
        pose = self.pose(frame)
        wide, high = self.arena.periods["x"], self.arena.periods["y"]
        # The centre is inside the arena: a copy can only touch from the side that is farther from it.
        columns = (pose.x, pose.x + (wide if pose.x < wide / 2 else -wide))
        rows = (pose.y, pose.y + (high if pose.y < high / 2 else -high))
        copies = [Pose(x, y, pose.radius, pose.angle) for x in columns for y in rows]
        return [copy for copy in copies if touches(copy, self.arena.size)]


@dataclass(frozen=True)
class FreeTrack:
    """Steady in all coordinates at once, without wrapping: the object may leave for good."""

    size: tuple[int, int]
    start: Pose
    velocity: tuple[float, float]  # pixels per frame
    spin: float  # radians per frame
    growth: float  # log radius per frame

    def at(self, frame: int) -> list[Pose]:
        """The pose at a frame, none when the object is outside."""
        x, y = self.start.x + self.velocity[0] * frame, self.start.y + self.velocity[1] * frame
        radius = self.start.radius * math.exp(self.growth * frame)
        pose = Pose(x, y, radius, self.start.angle + self.spin * frame)
        return [pose] if touches(pose, self.size) else []


def sample_track(rng: np.random.Generator, motion: Motion, size: tuple[int, int]) -> WrappedTrack:
    """A track of a class: the start uniform over every range, whatever the class, the rate as in RATES."""
    arena = Arena(size)
    start = {axis: float(rng.uniform()) for axis in ("x", "y", "angle", "radius")}
    unit = size[1] if motion.axis in ("x", "y") else 1
    rate = float(rng.uniform(*RATES[motion.axis])) * unit / arena.periods[motion.axis]
    return WrappedTrack(arena, start, motion.axis, motion.sign * rate)
