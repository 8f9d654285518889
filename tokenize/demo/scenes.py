"""Scenes: a background, objects on tracks, sometimes a post in front; a frame number in, pixels or masks out.

Larger objects are nearer and hide smaller ones. Shapes, textures, colours and places come from the same
distributions whatever the motion.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from toto.tokenize.demo.motions import RATES, FreeTrack, Motion, Track, sample_track
from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.sprites import Pose, Sprite, textured_sprite
from toto.tokenize.demo.textures import INKS, background, patchwork


@dataclass(frozen=True)
class Actor:
    """An object: what it looks like and where it goes."""

    sprite: Sprite
    track: Track


@dataclass(frozen=True)
class Scene:
    """What a camera sees; `pan` moves the view over the background by that many pixels a frame.

    The background wraps around at its edges; one that is larger than `size` need not get that far.
    """

    size: tuple[int, int]
    background: Image.Image
    actors: tuple[Actor, ...]
    front: Image.Image | None = None  # RGBA, drawn over everything
    pan: tuple[float, float] = (0.0, 0.0)

    def frame(self, number: int) -> Image.Image:
        """Frame `number` as an RGB picture."""
        left, top = round(self.pan[0] * number), round(self.pan[1] * number)
        canvas = ImageChops.offset(self.background, -left, -top).crop((0, 0, *self.size))
        for _, sprite, pose in self._back_to_front(number):
            sprite.paste(canvas, pose)
        if self.front is not None:
            canvas.paste(self.front, (0, 0), self.front)
        return canvas

    def mask(self, number: int) -> np.ndarray:
        """Which object is seen where: uint8 [height, width], 0 background, i + 1 for actor i."""
        canvas = Image.new("L", self.size)
        for index, sprite, pose in self._back_to_front(number):
            stamp = sprite.stamp(pose, self.size)
            if stamp is not None:
                canvas.paste(index + 1, stamp.corner, stamp.mask)
        if self.front is not None:
            canvas.paste(0, (0, 0), self.front.getchannel("A"))
        return np.asarray(canvas)

    def _back_to_front(self, number: int) -> Iterator[tuple[int, Sprite, Pose]]:
        placed = [(i, actor.sprite, pose) for i, actor in enumerate(self.actors) for pose in actor.track.at(number)]
        return iter(sorted(placed, key=lambda one: (one[2].radius, one[0])))


def pick_shape(rng: np.random.Generator) -> str:
    """A random shape's name."""
    return list(SHAPES)[rng.integers(len(SHAPES))]


def motion_scene(rng: np.random.Generator, motion: Motion, size: tuple[int, int]) -> Scene:
    """Two textured objects that do `motion`, before a patchwork that slides along with them if they slide.

    In some scenes a post stands in front. The patchwork's colours and place are as random in every class.
    """
    movers = [Actor(textured_sprite(rng, pick_shape(rng), 64), sample_track(rng, motion, size)) for _ in range(2)]
    front = _post(rng, size) if rng.uniform() < 0.3 else None
    slide = -motion.sign * float(rng.uniform(*RATES[motion.axis])) * size[1]  # the view goes the other way
    pan = (slide if motion.axis == "x" else 0.0, slide if motion.axis == "y" else 0.0)
    return Scene(size, patchwork(rng, size), tuple(movers), front, pan)


def _post(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """A post that stands before everything: RGBA of the whole picture."""
    width, height = size
    picture = Image.new("RGBA", size)
    thick = max(3, round(rng.uniform(0.06, 0.1) * height))
    left = round(rng.uniform(0.1, 0.9) * width) - thick // 2
    ink = list(INKS.values())[rng.integers(len(INKS))]
    dark = tuple(round(0.75 * value) for value in ink)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, 0, left + thick, height), fill=(*ink, 255))
    draw.rectangle((left + thick * 2 // 3, 0, left + thick, height), fill=(*dark, 255))
    return picture


def tracking_scene(rng: np.random.Generator, size: tuple[int, int], frames: int, shapes: list[str]) -> Scene:
    """Objects of `shapes` that move, turn, grow, hide one another and leave, before a panning background.

    Every object is well in view in frame 0 (DAVIS evaluates only objects that are).
    """
    pan = (float(rng.uniform(0, 1)), float(rng.uniform(0, 0.5)))
    wide = (size[0] + round(pan[0] * frames) + 1, size[1] + round(pan[1] * frames) + 1)
    ground = background(rng, wide)
    sprites = [textured_sprite(rng, shape, 128) for shape in shapes]
    while True:
        actors = tuple(Actor(sprite, _free_track(rng, size, frames)) for sprite in sprites)
        scene = Scene(size, ground, actors, None, pan)
        seen = np.bincount(scene.mask(0).ravel(), minlength=len(actors) + 1)[1:]
        if seen.min() >= 0.01 * size[0] * size[1]:
            return scene


def _free_track(rng: np.random.Generator, size: tuple[int, int], frames: int) -> FreeTrack:
    """From anywhere in the picture towards a point near or beyond the opposite side."""
    width, height = size
    start = Pose(
        float(rng.uniform(0.15, 0.85)) * width,
        float(rng.uniform(0.2, 0.8)) * height,
        float(rng.uniform(0.13, 0.24)) * height,
        float(rng.uniform(0, 2 * np.pi)),
    )
    goal_x, goal_y = rng.uniform(-0.2, 1.2) * width, rng.uniform(-0.1, 1.1) * height
    velocity = (float(goal_x - start.x) / frames, float(goal_y - start.y) / frames)
    return FreeTrack(size, start, velocity, float(rng.uniform(-0.08, 0.08)), float(rng.uniform(-0.02, 0.02)))
