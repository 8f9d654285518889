"""Textured shapes that can be pasted at any position, size and angle, with their exact masks.

    sprite = textured_sprite(rng, "star", side=96)      a master picture and smaller copies of it
    sprite.paste(canvas, Pose(x, y, radius, angle))     draws it with a soft shadow all round
    sprite.stamp(pose, canvas.size)                     its pixels and mask, and where they go

Coordinates are pixels, x to the right and y down, pixel centres at halves; angles turn clockwise, radians.
"""

import math
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.textures import INKS, Colour, luma, textured

_HALF = [0] * 128 + [255] * 128
_ROOM = 1.18  # half side of a shape's square, in radii: the rest is for its shadow
_SHADOW = (20, 20, 30)
_LEVELS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.17)  # copies of the master: bilinear sampling aliases below one half
_OUTLINE = 0.09  # of the radius


@dataclass(frozen=True)
class Pose:
    """Where a sprite is: centre and radius in pixels, angle in radians clockwise."""

    x: float
    y: float
    radius: float
    angle: float = 0.0


@dataclass(frozen=True)
class Stamp:
    """A sprite as it looks at some pose: mode RGBa (premultiplied), and where its upper left pixel falls."""

    picture: Image.Image
    corner: tuple[int, int]

    @property
    def mask(self) -> Image.Image:
        """255 where the sprite covers at least half of a pixel, else 0 (mode L)."""
        return self.picture.getchannel("a").point(_HALF)


@dataclass(frozen=True, eq=False)
class Sprite:
    """Square pictures, largest first; a shape of radius 1 / `room` of their half side lies in their middle.

    They are premultiplied (mode RGBa): Pillow resamples and pastes that mode without converting it first.
    Around the shape lies its shadow, which covers less than half.
    """

    levels: tuple[Image.Image, ...]
    room: float

    def stamp(self, pose: Pose, size: tuple[int, int]) -> Stamp | None:
        """The part of the sprite that falls into a picture of `size` (width, height); None if none does."""
        return _stamp(self, pose, size)

    def paste(self, canvas: Image.Image, pose: Pose) -> None:
        """Draws the sprite on an RGB canvas; what lies outside is cut."""
        stamp = self.stamp(pose, canvas.size)
        if stamp is not None:
            canvas.paste(stamp.picture, stamp.corner, stamp.picture)


@lru_cache(maxsize=256)  # objects at rest look the same in every frame
def _stamp(sprite: Sprite, pose: Pose, size: tuple[int, int]) -> Stamp | None:
    half = pose.radius * sprite.room
    left, top = max(0, math.floor(pose.x - half) - 1), max(0, math.floor(pose.y - half) - 1)
    right, bottom = min(size[0], math.ceil(pose.x + half) + 1), min(size[1], math.ceil(pose.y + half) + 1)
    if left >= right or top >= bottom:
        return None
    level = next((one for one in reversed(sprite.levels) if one.width >= 2 * half), sprite.levels[0])
    middle = level.width / 2
    cos, sin = math.cos(pose.angle) * middle / half, math.sin(pose.angle) * middle / half
    x, y = pose.x - left, pose.y - top
    inverse = (cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y)
    box = (right - left, bottom - top)
    return Stamp(level.transform(box, Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR), (left, top))


def touches(pose: Pose, size: tuple[int, int]) -> bool:
    """Whether a sprite at `pose` can have a pixel inside a picture of `size` (width, height)."""
    reach = pose.radius * _ROOM + 2
    return -reach < pose.x < size[0] + reach and -reach < pose.y < size[1] + reach


@cache
def _silhouette(shape: str, side: int, outline: float = 0.0) -> Image.Image:
    """The shape's coverage (mode L), smooth at its edge, less an `outline` of that many radii."""
    fine = 3 * side
    radius = fine / 2 / _ROOM
    points = [(fine / 2 + radius * x, fine / 2 + radius * y) for x, y in SHAPES[shape]]
    picture = Image.new("L", (fine, fine))
    draw = ImageDraw.Draw(picture)
    draw.polygon(points, fill=255)
    if outline:
        draw.line([*points, points[0], points[1]], fill=0, width=round(2 * outline * radius), joint="curve")
    return picture.reduce(3)


@cache
def _with_shadow(shape: str, side: int) -> Image.Image:
    """The shape's coverage and, outside it, its faint shadow's (mode L)."""
    solid = _silhouette(shape, side)
    soft = solid.filter(ImageFilter.GaussianBlur(0.06 * side))
    return Image.composite(solid, soft.point([round(0.45 * level) for level in range(256)]), solid)


def from_master(master: Image.Image, room: float = 1.0) -> Sprite:
    """A sprite of a square RGBA picture."""
    sharpest = master.convert("RGBa")
    sides = [max(8, round(master.width * level)) for level in _LEVELS]
    small = [sharpest.resize((side, side), Image.Resampling.BOX) for side in sides[1:]]
    return Sprite((sharpest, *small), room)


def textured_sprite(rng: np.random.Generator, shape: str, side: int) -> Sprite:
    """A shape with a random texture and an outline; `side` pixels at its sharpest."""
    return _sprite(shape, textured(rng, side))


def plain_sprite(shape: str, side: int, colour: Colour) -> Sprite:
    """A shape of one colour with an outline; it covers the same pixels as a textured one of that side."""
    return _sprite(shape, np.full((side, side, 3), colour, np.uint8))


def _sprite(shape: str, surface: np.ndarray) -> Sprite:
    side = len(surface)
    red, green, blue = surface.reshape(-1, 3).mean(axis=0)
    outline = INKS["charcoal"] if luma((red, green, blue)) > 128 else INKS["cream"]
    body = Image.new("RGB", (side, side), _SHADOW)
    body.paste(outline, (0, 0), _silhouette(shape, side))
    body.paste(Image.fromarray(surface), (0, 0), _silhouette(shape, side, _OUTLINE))
    body.putalpha(_with_shadow(shape, side))
    return from_master(body, _ROOM)
