"""The ImageNet layout after sorting: {train,val}/<wnid>/*.JPEG; the class is the object's shape.

Names are the official ones (`<wnid>_<n>.JPEG`, `ILSVRC2012_val_########.JPEG`), wnids start with n9 (none
does in WordNet), and `LOC_synset_mapping.txt` names them as in the Kaggle edition. One picture of each split is
grey (mode L), as some of the true set are; another carries an EXIF orientation.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from toto.tokenize.demo.motions import FreeTrack
from toto.tokenize.demo.scenes import Actor, Scene
from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.spec import Job, WorldSpec, generator, validation
from toto.tokenize.demo.sprites import Pose, plain_sprite, textured_sprite
from toto.tokenize.demo.textures import INKS, background

SIZES = ((160, 120), (128, 128), (150, 200), (201, 151), (256, 192))
GREY, TURNED = 1, 2  # numbers of these pictures in their split
_ORIENTATION, _QUARTER_TURN = (
    0x0112,
    6,
)  # EXIF tag; shown after turning the stored pixels 90 degrees clockwise


@dataclass(frozen=True)
class Still:
    """One picture file."""

    split: str
    number: int  # in its split
    shape: str
    file: str  # below the dataset's root


def annotate(root: Path, spec: WorldSpec) -> None:
    """Makes the folders and writes the names of the classes."""
    shapes = list(SHAPES)[: spec.image_classes]
    for split in ("train", "val"):
        for number in range(len(shapes)):
            (root / split / wnid(number)).mkdir(parents=True)
    names = [f"{wnid(number)} {shape}\n" for number, shape in enumerate(shapes)]
    (root / "LOC_synset_mapping.txt").write_text("".join(names))


def jobs(root: Path, spec: WorldSpec) -> list[Job]:
    """One job per picture."""
    stills = plan(spec, "train") + plan(spec, "val")
    return [partial(_write_still, root, spec.seed, still) for still in stills]


def wnid(number: int) -> str:
    """The id of class `number`: n and eight digits."""
    return f"n{90000001 + number}"


def plan(spec: WorldSpec, split: str) -> list[Still]:
    """The pictures of a split, the classes in turn."""
    held_out = validation(spec.images_per_class)
    count = held_out if split == "val" else spec.images_per_class - held_out
    stills = []
    for number in range(count * spec.image_classes):
        of_class = number % spec.image_classes
        stem = f"ILSVRC2012_val_{number + 1:08d}" if split == "val" else f"{wnid(of_class)}_{number + 1}"
        file = f"{split}/{wnid(of_class)}/{stem}.JPEG"
        stills.append(Still(split, number, list(SHAPES)[of_class], file))
    return stills


def _write_still(root: Path, seed: int, still: Still) -> None:
    rng = generator(seed, "imagenet", still.split, still.number)
    size = SIZES[rng.integers(len(SIZES))]
    picture = _still_scene(rng, still.shape, size).frame(0)
    if still.number == GREY:
        picture = picture.convert("L")
    exif = Image.Exif()
    if still.number == TURNED:
        picture = picture.transpose(Image.Transpose.ROTATE_90)
        exif[_ORIENTATION] = _QUARTER_TURN
    picture.save(root / still.file, format="JPEG", quality=90, exif=exif)


def _still_scene(rng: np.random.Generator, shape: str, size: tuple[int, int]) -> Scene:
    """The shape, large and textured, over two small plain discs."""
    actors = [Actor(textured_sprite(rng, shape, 160), _resting(rng, size, 0.26, 0.42))]
    for _ in range(2):
        ink = list(INKS.values())[rng.integers(len(INKS))]
        actors.append(Actor(plain_sprite("disc", 48, ink), _resting(rng, size, 0.06, 0.11)))
    return Scene(size, background(rng, size), tuple(actors))


def _resting(rng: np.random.Generator, size: tuple[int, int], least: float, most: float) -> FreeTrack:
    """Wholly in the picture at rest, turned at random; radii are in short sides."""
    radius = float(rng.uniform(least, most)) * min(size)
    x, y = (float(rng.uniform(radius, side - radius)) for side in size)
    return FreeTrack(size, Pose(x, y, radius, float(rng.uniform(0, 2 * np.pi))), (0.0, 0.0), 0.0, 0.0)
