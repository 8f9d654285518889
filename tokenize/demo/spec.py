"""What a demo world holds, as one value: the same spec draws the same pictures anywhere.

Everything random comes from `generator(seed, name…)`, so that no file depends on the order of drawing.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.errors import UsageError

_MANY = 100_000
_LIMITS = {
    "classes": (1, 8),
    "videos_per_class": (2, _MANY),
    "frames": (5, _MANY),
    "image_classes": (1, 10),
    "images_per_class": (2, _MANY),
    "davis_sequences": (2, _MANY),
    "davis_frames": (2, _MANY),
    "cater_videos": (2, _MANY),
    "cater_frames": (13, _MANY),
    "sta_videos": (2, _MANY),
    "sta_frames": (40, _MANY),
}

Job = Callable[[], None]  # writes one file (or one sequence); independent of every other job


@dataclass(frozen=True)
class WorldSpec:
    """Counts and sizes of a demo world; sizes are (width, height) in pixels and even.

    Of `n` videos of a class, sequences or images of a class, `validation(n)` go to the validation split.
    """

    seed: int = 0
    classes: int = 8  # motions, the first of motions.MOTIONS
    videos_per_class: int = 176
    frames: int = 37  # on average; clips have 0.8 to 1.2 times as many, at stride 4 one window of 8
    size: tuple[int, int] = (96, 64)
    image_classes: int = 10  # shapes, the first of shapes.SHAPES
    images_per_class: int = 24
    davis_sequences: int = 10
    davis_frames: int = 24
    davis_size: tuple[int, int] = (256, 144)
    cater_videos: int = 40
    cater_frames: int = 97
    cater_size: tuple[int, int] = (160, 120)
    sta_videos: int = 24
    sta_frames: int = 90
    sta_size: tuple[int, int] = (192, 144)

    def __post_init__(self) -> None:
        """Raises UsageError for a world that could not be drawn."""
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"demo world: {name} is {getattr(self, name)}; it must be {least} to {most}")
        for name in ("size", "davis_size", "cater_size", "sta_size"):
            sides = getattr(self, name)
            if any(side < 32 or side % 2 for side in sides):
                raise UsageError(f"demo world: {name} is {sides}; both sides must be even and at least 32")

    @classmethod
    def of(cls, values: dict[str, Any]) -> "WorldSpec":
        """The spec that `dataclasses.asdict` and JSON made these values of."""
        pairs = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **pairs})


def validation(count: int) -> int:
    """How many of `count` things go to the validation split: a quarter, at least one."""
    return max(1, count // 4)


def generator(seed: int, *names: object) -> np.random.Generator:
    """The random numbers of one named thing, such as generator(0, "kinetics", "train", 7)."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, names)).encode())])
