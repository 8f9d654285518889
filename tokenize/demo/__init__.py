"""The demo world: drawn videos and pictures in the official layouts of the datasets they stand for.

spec.py says what is drawn; textures, shapes, sprites, motions and scenes draw it; one module per layout (kinetics,
imagenet, davis, cater, ego4d_sta) writes it; world.py builds the whole, atomically.
"""

from toto.tokenize.demo.spec import WorldSpec
from toto.tokenize.demo.world import build

__all__ = ["WorldSpec", "build"]
