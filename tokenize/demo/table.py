"""Draws the hiding game: shaded solids on a table in perspective, with the 6 x 6 cells faintly ruled.

A solid is drawn once and pasted smaller the farther away it stands; nearer ones are drawn later.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from toto.tokenize.demo.hiding import Game, Solid
from toto.tokenize.demo.sprites import Pose, Sprite, from_master
from toto.tokenize.demo.textures import Colour, mix, noise

# CLEVR's colours, and CATER's gold.
COLOURS: dict[str, Colour] = {
    "gray": (130, 130, 130),
    "red": (200, 55, 45),
    "blue": (50, 85, 220),
    "green": (35, 125, 45),
    "brown": (140, 85, 35),
    "purple": (140, 50, 195),
    "cyan": (45, 205, 205),
    "yellow": (245, 225, 60),
    "gold": (255, 205, 40),
}
_SIDE = 96  # pixels of a solid's master
_FOOT = 0.93  # how far below the master's middle a solid stands, in radii
_ROOM = 1.5  # half side of the master in radii: for what is taller than wide


@dataclass(frozen=True)
class Camera:
    """A fixed view of the table for pictures of `size` (width, height)."""

    size: tuple[int, int]

    def scale(self, y: float) -> float:
        """Pixels per unit at depth y."""
        return self.size[0] * 0.146 / (1 + 0.075 * (y + 3))

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """The pixel of a point."""
        width, height = self.size
        depth = (y + 3) / (1 + 0.075 * (y + 3))
        return width / 2 + x * self.scale(y), height * (0.93 - 0.155 * depth) - 0.85 * z * self.scale(y)


def draw_table(rng: np.random.Generator, camera: Camera) -> Image.Image:
    """The empty table."""
    grain = 0.35 * noise(rng, 9, camera.size) + np.linspace(0.55, 0.0, camera.size[1])[:, None]
    picture = Image.fromarray(mix((206, 204, 200), (150, 148, 146), grain))
    lines = ImageDraw.Draw(picture)
    for step in range(-3, 4):
        for ends in (((step, -3), (step, 3)), ((-3, step), (3, step))):
            lines.line([camera.project(x, y, 0) for x, y in ends], fill=(170, 168, 166))
    return picture


def draw_game(rng: np.random.Generator, game: Game, camera: Camera) -> "GameView":
    """Everything that is drawn once."""
    solids = tuple(draw_solid(solid) for solid in game.solids)
    return GameView(game, camera, draw_table(rng, camera), solids, _ground_shadow())


@dataclass(frozen=True)
class GameView:
    """A game seen by a camera."""

    game: Game
    camera: Camera
    table: Image.Image
    solids: tuple[Sprite, ...]
    shadow: Sprite

    def frame(self, number: int) -> Image.Image:
        """Frame `number` as an RGB picture; a covered solid is not seen."""
        canvas = self.table.copy()
        places = self.game.locations[:, number].tolist()
        shown = [index for index in range(len(places)) if not self.game.covered[index, number]]
        for index in shown:
            self.shadow.paste(canvas, self._pose(index, places[index], on_table=True))
        for index in sorted(shown, key=lambda one: (-places[one][1], one)):
            self.solids[index].paste(canvas, self._pose(index, places[index]))
        return canvas

    def _pose(self, index: int, place: list[float], on_table: bool = False) -> Pose:
        x, y, z = place
        radius = self.game.solids[index].radius
        lift = 0.0 if on_table else z - radius
        column, row = self.camera.project(x, y, lift)
        radius *= self.camera.scale(y)
        return Pose(column, row if on_table else row - _FOOT * radius, radius)


def draw_solid(solid: Solid) -> Sprite:
    """A solid's sprite: body colour times shading, brighter glints for metal."""
    line = np.linspace(-1, 1, 2 * _SIDE, dtype=np.float32)
    u, v = np.meshgrid(line, line)
    inside, shade = _BODIES[solid.shape](u, v)
    colour = np.asarray(COLOURS[solid.color], np.float32)
    light = np.clip(shade, 0, 1.25)[..., None]
    pixels = colour * np.minimum(light, 1) + (255 - colour) * np.maximum(light - 1, 0)
    if solid.material == "metal":
        glint = np.exp(-(((u + 0.17) / 0.13) ** 2 + ((v + 0.02) / 0.16) ** 2))
        pixels += 0.75 * glint[..., None] * (255 - pixels)
    rgba = np.dstack([np.clip(pixels, 0, 255), np.where(inside, 255, 0)]).astype(np.uint8)
    return from_master(Image.fromarray(rgba).reduce(2), _ROOM)


@cache
def _ground_shadow() -> Sprite:
    line = np.linspace(-1, 1, 64)
    u, v = np.meshgrid(line, line)
    alpha = 130 * np.clip(1.25 - np.hypot(u / 0.75, v / 0.32), 0, 1)
    rgba = np.dstack([np.full((64, 64, 3), 25), alpha]).astype(np.uint8)
    return from_master(Image.fromarray(rgba), _ROOM)


Body = tuple[np.ndarray, np.ndarray]  # where the solid is, how bright it is there


def _sphere(u: np.ndarray, v: np.ndarray) -> Body:
    radius = 0.66
    x, y = u / radius, v / radius
    depth = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    return x * x + y * y <= 1, 0.3 + 0.85 * np.clip(-0.45 * x - 0.55 * y + 0.7 * depth, 0, 1)


def _spl(u: np.ndarray, v: np.ndarray) -> Body:
    """The golden one: a ball with eight blunt points."""
    turn = np.arctan2(v, u)
    _, shade = _sphere(u, v)
    return np.hypot(u, v) <= 0.62 + 0.16 * np.cos(8 * turn), shade + 0.15 + 0.1 * np.cos(8 * turn)


def _cylinder(u: np.ndarray, v: np.ndarray) -> Body:
    half, top, foot, flat = 0.6, -0.5, 0.5, 0.18
    lid = (u / half) ** 2 + ((v - top) / flat) ** 2 <= 1
    side = (np.abs(u) <= half) & (v >= top) & (v <= foot)
    base = (u / half) ** 2 + ((v - foot) / flat) ** 2 <= 1
    return lid | side | base, np.where(lid, 1.1, _round_side(u / half))


def _cone(u: np.ndarray, v: np.ndarray) -> Body:
    apex, foot, half, flat = -1.0, 0.5, 0.7, 0.2
    width = np.clip(half * (v - apex) / (foot - apex), 1e-3, half)
    side = (np.abs(u) <= width) & (v >= apex) & (v <= foot)
    base = (u / half) ** 2 + ((v - foot) / flat) ** 2 <= 1
    return side | (base & (v > foot)), _round_side(u / width)


def _cube(u: np.ndarray, v: np.ndarray) -> Body:
    front = (np.abs(u + 0.1) <= 0.5) & (v >= -0.3) & (v <= 0.68)
    lean = (v + 0.3) / -0.3  # 0 at the front edge of the lid, 1 at its back edge
    lid = (v < -0.3) & (v >= -0.6) & (u + 0.1 - 0.25 * lean >= -0.5) & (u + 0.1 - 0.25 * lean <= 0.5)
    right = (u > 0.4) & (u <= 0.65) & (v >= -0.3 - 1.2 * (u - 0.4)) & (v <= 0.68 - 1.2 * (u - 0.4))
    return front | lid | right, np.where(lid, 1.12, np.where(right & ~front, 0.5, 0.85))


def _round_side(across: np.ndarray) -> np.ndarray:
    """Brightness of an upright round side, lit from the left; across is -1…1."""
    return 0.4 + 0.65 * np.clip(np.cos(1.2 * (across + 0.35)), 0, 1)


_BODIES = {"sphere": _sphere, "spl": _spl, "cylinder": _cylinder, "cone": _cone, "cube": _cube}
