"""A hand reaches for one of several objects: what happens when, and how it looks.

The hand's shape tells what it will do: an open hand takes, a finger presses, a fist pushes. It moves in a
straight line at a constant speed, so that the time to contact can be read from two frames.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from toto.tokenize.demo.scenes import pick_shape
from toto.tokenize.demo.sprites import Pose, Sprite, from_master, plain_sprite, textured_sprite
from toto.tokenize.demo.textures import INKS, Colour, background

VERBS = ("take", "press", "push")
_SKINS: tuple[Colour, ...] = ((241, 194, 160), (198, 134, 96), (141, 85, 54), (90, 56, 37))
_SLEEVES: tuple[Colour, ...] = ((60, 90, 150), (160, 60, 60), (70, 120, 90), (90, 90, 100))
_TIP = 0.7  # the fingers stop this far from the object's centre, in radii
_DWELL = 12  # frames a finger stays on what it presses
_HAND_SIDE, _OBJECT_SIDE = 768, 64  # pixels of their masters


@dataclass(frozen=True)
class Reach:
    """One event: which object (index), which verb (index), at which frame and how the hand comes."""

    size: tuple[int, int]
    shapes: tuple[str, ...]
    objects: tuple[Pose, ...]  # at rest, before the contact
    target: int
    verb: int
    contact: int  # the first frame of contact
    heading: float  # radians clockwise from up
    speed: float  # pixels per frame

    def tip(self, frame: int) -> tuple[float, float]:
        """Where the hand's tip is."""
        pose = self.objects[self.target]
        travelled = self._travelled(frame) - _TIP * pose.radius
        return pose.x + travelled * math.sin(self.heading), pose.y - travelled * math.cos(self.heading)

    def pose(self, index: int, frame: int) -> Pose:
        """Where object `index` is: at rest, until it is taken along, pressed down or pushed away."""
        rest = self.objects[index]
        if index != self.target or frame < self.contact:
            return rest
        if VERBS[self.verb] == "press":
            down = 0.85 if frame < self.contact + _DWELL else 1.0
            return Pose(rest.x, rest.y, rest.radius * down, rest.angle)
        x, y = self.tip(frame)
        reach = _TIP * rest.radius
        return Pose(x + reach * math.sin(self.heading), y - reach * math.cos(self.heading), rest.radius, rest.angle)

    def box(self, index: int, frame: int) -> tuple[float, float, float, float]:
        """Object `index`'s tight box x1, y1, x2, y2 in pixels (edges, not indices), cut to the picture."""
        sprite = plain_sprite(self.shapes[index], _OBJECT_SIDE, INKS["cream"])
        stamp = sprite.stamp(self.pose(index, frame), self.size)
        seen = stamp.mask.getbbox() if stamp is not None else None
        if stamp is None or seen is None:
            raise ValueError(f"object {index} is outside the picture at frame {frame}")
        left, top = stamp.corner
        return float(left + seen[0]), float(top + seen[1]), float(left + seen[2]), float(top + seen[3])

    def _travelled(self, frame: int) -> float:
        """Pixels beyond the point of contact along the heading; negative before it and on the way back."""
        since = frame - self.contact
        if since <= 0:
            return self.speed * since
        if VERBS[self.verb] == "push":
            return 0.6 * self.speed * since
        wait = _DWELL if VERBS[self.verb] == "press" else 3
        return -self.speed * max(0, since - wait)


def sample_reach(rng: np.random.Generator, size: tuple[int, int], frames: int) -> Reach:
    """A random event whose contact lies between 45 and 80 % of the video."""
    poses = _places(rng, size, int(rng.integers(3, 5)))
    return Reach(
        size=size,
        shapes=tuple(pick_shape(rng) for _ in poses),
        objects=tuple(poses),
        target=int(rng.integers(len(poses))),
        verb=int(rng.integers(len(VERBS))),
        contact=int(rng.integers(round(0.45 * frames), round(0.8 * frames))),
        heading=float(rng.uniform(-1.0, 1.0)),
        speed=float(rng.uniform(0.008, 0.018)) * size[1],
    )


def _places(rng: np.random.Generator, size: tuple[int, int], count: int) -> list[Pose]:
    """Places in the upper two thirds that keep apart where there is room (40 tries each)."""
    poses: list[Pose] = []
    for _ in range(count):
        for _ in range(40):
            radius = float(rng.uniform(0.09, 0.15)) * size[1]
            x = float(rng.uniform(radius + 2, size[0] - radius - 2))
            y = float(rng.uniform(radius + 2, 0.68 * size[1]))
            pose = Pose(x, y, radius, float(rng.uniform(0, 2 * np.pi)))
            if all(math.hypot(x - one.x, y - one.y) > 1.15 * (radius + one.radius) for one in poses):
                break
        poses.append(pose)
    return poses


@dataclass(frozen=True)
class ReachView:
    """A reach with everything that is drawn once; the table shows the objects that stay at rest."""

    reach: Reach
    table: Image.Image
    objects: tuple[Sprite, ...]
    hand: Sprite

    def frame(self, number: int) -> Image.Image:
        """Frame `number` as an RGB picture."""
        canvas = self.table.copy()
        target = self.reach.target
        self.objects[target].paste(canvas, self.reach.pose(target, number))
        x, y = self.reach.tip(number)
        self.hand.paste(canvas, Pose(x, y, 1.3 * max(self.reach.size), self.reach.heading))
        return canvas


def view(rng: np.random.Generator, reach: Reach) -> ReachView:
    """Draws what a reach shows."""
    objects = tuple(textured_sprite(rng, shape, _OBJECT_SIDE) for shape in reach.shapes)
    table = background(rng, reach.size)
    for index, sprite in enumerate(objects):
        if index != reach.target:
            sprite.paste(table, reach.objects[index])
    return ReachView(reach, table, objects, draw_hand(rng, reach.verb))


def draw_hand(rng: np.random.Generator, verb: int) -> Sprite:
    """A hand and arm that point up, the tip at the sprite's centre; skin and sleeve at random."""
    skin, sleeve = _SKINS[rng.integers(len(_SKINS))], _SLEEVES[rng.integers(len(_SLEEVES))]
    picture = Image.new("RGBA", (_HAND_SIDE, _HAND_SIDE))
    draw = ImageDraw.Draw(picture)
    _draw_fingers(draw, VERBS[verb], _darker(skin, 0.7), 2)
    _draw_fingers(draw, VERBS[verb], skin, 0)
    middle = _HAND_SIDE / 2
    draw.rounded_rectangle((middle - 24, middle + 96, middle + 24, _HAND_SIDE), 7, fill=sleeve)
    draw.rounded_rectangle((middle - 27, middle + 94, middle + 27, middle + 108), 7, fill=_darker(sleeve, 0.8))
    return from_master(picture)


def _darker(colour: Colour, share: float) -> Colour:
    red, green, blue = (round(share * value) for value in colour)
    return red, green, blue


def _draw_fingers(draw: ImageDraw.ImageDraw, verb: str, fill: Colour, extra: int) -> None:
    """Palm, wrist and fingers in one colour; `extra` pixels wider all round gives an outline."""
    x = y = _HAND_SIDE / 2

    def bone(start: tuple[float, float], end: tuple[float, float], thick: float) -> None:
        half = thick / 2 + extra
        draw.line((*start, *end), fill=fill, width=round(2 * half))
        for a, b in (start, end):
            draw.ellipse((a - half, b - half, a + half, b + half), fill=fill)

    if verb == "take":
        for offset, length in ((-30, 8), (-11, 2), (9, 2), (28, 10)):
            bone((x + 0.6 * offset, y + 52), (x + offset, y + length), 13)
        bone((x - 16, y + 72), (x - 44, y + 46), 13)
    elif verb == "press":
        bone((x, y + 60), (x, y + 5), 13)
        bone((x - 14, y + 70), (x - 30, y + 56), 13)
    top = y + (8 if verb == "push" else 44)
    draw.rounded_rectangle((x - 26 - extra, top - extra, x + 26 + extra, y + 92 + extra), 20 + extra, fill=fill)
    bone((x, y + 84), (x, y + 130), 32)
