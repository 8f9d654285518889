"""The Kinetics-400 layout: annotations/{train,val}.csv and one folder of clips per split.

Files as cvdf delivers them: `<split>/<youtube id>_<start:06d>_<end:06d>.mp4|webm`, flat; the CSV's header is
`label,youtube_id,time_start,time_end,split,is_cc`, labels with spaces in double quotes. The true clips last
10 seconds, these 2 to 5: time_end - time_start is their length rounded up.
"""

import math
import string
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from toto.tokenize.demo.encode import write_video
from toto.tokenize.demo.motions import MOTIONS, Motion
from toto.tokenize.demo.scenes import motion_scene
from toto.tokenize.demo.spec import Job, WorldSpec, generator, validation

HEADER = "label,youtube_id,time_start,time_end,split,is_cc"
_ALPHABET = string.ascii_letters + string.digits + "-_"


@dataclass(frozen=True)
class Clip:
    """One row of the CSV and how its file is made."""

    split: str
    number: int  # in the CSV of its split
    motion: Motion
    youtube_id: str
    start: int  # seconds into a longer video that never was
    frames: int
    fps: int
    size: tuple[int, int]
    codec: str

    @property
    def end(self) -> int:
        """Seconds, rounded up."""
        return self.start + math.ceil(self.frames / self.fps)

    @property
    def file(self) -> str:
        """Path below the dataset's root."""
        suffix = "webm" if self.codec == "vp9" else "mp4"
        return f"{self.split}/{self.youtube_id}_{self.start:06d}_{self.end:06d}.{suffix}"

    @property
    def row(self) -> str:
        """Its line of the CSV."""
        label = f'"{self.motion.label}"' if " " in self.motion.label else self.motion.label
        return f"{label},{self.youtube_id},{self.start},{self.end},{self.split},{self.number % 2}"


def annotate(root: Path, spec: WorldSpec) -> None:
    """Makes the folders and writes the CSV files."""
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        (root / split).mkdir()
        lines = [HEADER, *(clip.row for clip in plan(spec, split))]
        (root / "annotations" / f"{split}.csv").write_text("\n".join(lines) + "\n")


def jobs(root: Path, spec: WorldSpec) -> list[Job]:
    """One job per clip."""
    clips = plan(spec, "train") + plan(spec, "val")
    return [partial(_write_clip, root, spec.seed, clip) for clip in clips]


def plan(spec: WorldSpec, split: str) -> list[Clip]:
    """The clips of a split in the CSV's order, which is shuffled; only its motion tells a clip's class."""
    held_out = validation(spec.videos_per_class)
    count = held_out if split == "val" else spec.videos_per_class - held_out
    motions = [motion for motion in MOTIONS[: spec.classes] for _ in range(count)]
    order = generator(spec.seed, "kinetics", split).permutation(len(motions))
    return [_clip(spec, split, number, motions[at]) for number, at in enumerate(order)]


def _clip(spec: WorldSpec, split: str, number: int, motion: Motion) -> Clip:
    rng = generator(spec.seed, "kinetics", split, number, "file")
    width, height = spec.size
    return Clip(
        split=split,
        number=number,
        motion=motion,
        youtube_id=_youtube_id(rng, number),
        start=int(rng.integers(0, 300)),
        frames=round(spec.frames * rng.uniform(0.8, 1.2)),
        fps=(24, 25, 30)[rng.integers(3)],
        size=(height, height) if rng.uniform() < 0.25 else (width, height),
        codec="vp9" if rng.uniform() < 0.25 else "h264",
    )


def _youtube_id(rng: np.random.Generator, number: int) -> str:
    """Eleven characters; the first clip's begin with a dash, the second's with an underscore, as some do."""
    letters = "".join(_ALPHABET[at] for at in rng.integers(0, len(_ALPHABET), 11))
    return {0: "-", 1: "_"}.get(number, letters[0]) + letters[1:]


def _write_clip(root: Path, seed: int, clip: Clip) -> None:
    rng = generator(seed, "kinetics", clip.split, clip.number, "scene")
    scene = motion_scene(rng, clip.motion, clip.size)
    pictures = (scene.frame(number) for number in range(clip.frames))
    write_video(root / clip.file, pictures, clip.fps, clip.codec, clip.size)
