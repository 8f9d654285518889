"""The DAVIS-2017 layout: frames, palette masks of every frame, lists of sequences.

    JPEGImages/480p/<sequence>/%05d.jpg     Annotations/480p/<sequence>/%05d.png (mode P: 0 background, 1…N)
    ImageSets/2017/{train,val}.txt          one sequence per line

The folder is called 480p because readers expect the name; the pictures are smaller (WorldSpec.davis_size).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from toto.tokenize.demo.scenes import tracking_scene
from toto.tokenize.demo.shapes import SHAPES
from toto.tokenize.demo.spec import Job, WorldSpec, generator, validation


@dataclass(frozen=True)
class Sequence:
    """One sequence: its name and the shapes in it, in the order of their ids."""

    name: str
    shapes: tuple[str, ...]


def annotate(root: Path, spec: WorldSpec) -> None:
    """Writes the lists of sequences."""
    sequences, held_out = plan(spec), validation(spec.davis_sequences)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    for split, part in (("train", sequences[:-held_out]), ("val", sequences[-held_out:])):
        (lists / f"{split}.txt").write_text("".join(f"{one.name}\n" for one in part))


def jobs(root: Path, spec: WorldSpec) -> list[Job]:
    """One job per sequence."""
    return [partial(_write_sequence, root, spec, one) for one in plan(spec)]


def plan(spec: WorldSpec) -> list[Sequence]:
    """The sequences, training ones first; each shows two to four different shapes."""
    return [_sequence(spec, number) for number in range(spec.davis_sequences)]


def _sequence(spec: WorldSpec, number: int) -> Sequence:
    rng = generator(spec.seed, "davis", number, "name")
    picked = rng.permutation(len(SHAPES))[: rng.integers(2, 5)]
    shapes = tuple(list(SHAPES)[at] for at in picked)
    return Sequence(f"{shapes[0]}-{shapes[1]}-{number:02d}", shapes)


def _write_sequence(root: Path, spec: WorldSpec, sequence: Sequence) -> None:
    rng = generator(spec.seed, "davis", sequence.name)
    scene = tracking_scene(rng, spec.davis_size, spec.davis_frames, list(sequence.shapes))
    pictures = root / "JPEGImages" / "480p" / sequence.name
    masks = root / "Annotations" / "480p" / sequence.name
    pictures.mkdir(parents=True)
    masks.mkdir(parents=True)
    for number in range(spec.davis_frames):
        scene.frame(number).save(pictures / f"{number:05d}.jpg", quality=92)
        mask = Image.fromarray(scene.mask(number), mode="L").convert("P")
        mask.putpalette(palette())
        mask.save(masks / f"{number:05d}.png")


def palette() -> list[int]:
    """DAVIS's colours, 256 x 3 values: ids to 21 spread their bits over the channels, the others are greys."""
    levels = (0, 64, 128, 191)  # 191 where PASCAL VOC has 192
    values = []
    for index in range(22):
        values += [levels[2 * (index >> channel & 1) + (index >> channel + 3 & 1)] for channel in range(3)]
    return values + [grey for grey in range(22, 256) for _ in range(3)]
