"""The hiding game of CATER: solids move about a table; a cone may cover the golden one and take it along.

Coordinates are CATER's: x to the right and y away from the camera in -3…3, z up. Time is cut into slots; in
each, some solids act. Actions have CATER's names: `_slide`, `_pick_place`, `_contain`.
"""

from dataclasses import dataclass, field

import numpy as np

SPL = 0  # the index of the golden solid ("snitch") whose place is the label; 1 and 2 are cones
RADII = {"small": 0.3, "medium": 0.5, "large": 0.75}  # CATER's sizes
_REACH = 2.75  # how far from the middle a solid may stand
_SLOT_FRAMES = 24
_LIFT = 1.6  # how high above the table a solid is carried


@dataclass(frozen=True)
class Solid:
    """One object of a scene; the words are those of CATER's scene files."""

    instance: str
    shape: str
    size: str
    color: str
    material: str

    @property
    def radius(self) -> float:
        """In units of the table."""
        return RADII[self.size]


@dataclass(frozen=True)
class Game:
    """A whole game: float locations [solids, frames, 3], whether each is covered, who did what when."""

    solids: tuple[Solid, ...]
    locations: np.ndarray
    covered: np.ndarray  # bool [solids, frames]
    movements: dict[str, list[tuple[str, str | None, int, int]]]  # action, other, first frame, last frame


def cell(location: np.ndarray | list[float], half: int = 3) -> int:
    """The class of a place: its cell of a grid of (2 half)² cells, row by row (CATER's localize: half 3)."""
    column, row = (int(np.floor(value * half / 3)) + half for value in location[:2])
    return row * 2 * half + column


def play(rng: np.random.Generator, frames: int) -> Game:
    """A random game; every solid stays within the table, so the last place always has a class."""
    table = _Table(rng, _solids(rng), frames)
    slots = max(3, (frames - 1) // _SLOT_FRAMES)
    bounds = np.linspace(0, frames - 1, slots + 1).astype(int)
    hide_at = int(rng.integers(0, slots - 1)) if rng.uniform() < 0.8 else -1
    for slot in range(slots):
        table.turn(int(bounds[slot]), int(bounds[slot + 1]), hide=slot == hide_at)
    return Game(table.solids, table.locations, table.covered, table.movements)


def _solids(rng: np.random.Generator) -> tuple[Solid, ...]:
    """The golden one, a medium and a large cone, and two or three others."""
    colours = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")  # CLEVR's
    solids = [Solid("Spl_0", "spl", "small", "gold", "metal")]
    shapes = [
        "cone",
        "cone",
        *(("sphere", "cube", "cylinder")[i] for i in rng.integers(0, 3, rng.integers(2, 4))),
    ]
    for number, shape in enumerate(shapes):
        size = ("medium", "large")[number] if number < 2 else ("small", "medium")[rng.integers(2)]
        same = sum(one.shape == shape for one in solids)
        colour, material = colours[rng.integers(len(colours))], ("rubber", "metal")[rng.integers(2)]
        solids.append(Solid(f"{shape.capitalize()}_{same}", shape, size, colour, material))
    return tuple(solids)


@dataclass
class _Table:
    """The state of a game while it is played."""

    rng: np.random.Generator
    solids: tuple[Solid, ...]
    frames: int
    holder: int | None = None  # the cone that covers the golden solid
    locations: np.ndarray = field(init=False)
    covered: np.ndarray = field(init=False)
    movements: dict[str, list[tuple[str, str | None, int, int]]] = field(init=False)

    def __post_init__(self) -> None:
        self.locations = np.zeros((len(self.solids), self.frames, 3))
        self.covered = np.zeros((len(self.solids), self.frames), bool)
        self.movements = {solid.instance: [] for solid in self.solids}
        self.locations[:, :, :2] = 99.0  # nowhere yet: in nobody's way
        for index, solid in enumerate(self.solids):
            self.locations[index, :] = [*self._free_place(index, 0), solid.radius]

    def turn(self, first: int, last: int, hide: bool) -> None:
        """Lets some solids act between two frames."""
        busy = {SPL}
        if hide:
            cone = int(self.rng.integers(1, 3))
            self._move(cone, "_contain", self.locations[SPL, first, :2], first, last)
            self.holder = cone
            self.covered[SPL, last:] = True
            busy.add(cone)
        for index in range(len(self.solids)):
            likely = 0.75 if index == self.holder else 0.35
            if index in busy or self.rng.uniform() > likely:
                continue
            lifted = index != self.holder and self.rng.uniform() < 0.5
            self._move(index, "_pick_place" if lifted else "_slide", self._free_place(index, last), first, last)
        if not hide and self.holder is None and self.rng.uniform() < 0.4:
            self._move(SPL, "_slide", self._free_place(SPL, last), first, last)

    def _move(self, index: int, action: str, goal: np.ndarray, first: int, last: int) -> None:
        """Moves a solid (and what it covers) to `goal` with a soft start and stop; it stays there."""
        time = np.linspace(0, 1, last - first + 1)
        lift = 0.0 if action == "_slide" else _LIFT
        across = np.clip(time * 1.5 - 0.25, 0, 1) if lift else time  # up first, then across, then down
        soft = (across * across * (3 - 2 * across))[:, None]
        start = self.locations[index, first, :2].copy()
        self.locations[index, first : last + 1, :2] = start + soft * (goal - start)
        self.locations[index, first : last + 1, 2] = self.solids[index].radius + lift * np.sin(np.pi * time)
        self.locations[index, last:, :2] = goal
        self.locations[index, last:, 2] = self.solids[index].radius
        if index == self.holder:
            self.locations[SPL, first:, :2] = self.locations[index, first:, :2]
        other = self.solids[SPL].instance if action == "_contain" else None
        self.movements[self.solids[index].instance].append((action, other, first, last))

    def _free_place(self, index: int, frame: int) -> np.ndarray:
        """A place away from where the others rest at `frame`; after 200 misses any place will do."""
        others = [i for i in range(len(self.solids)) if i != index and not (index == self.holder and i == SPL)]
        for _ in range(200):
            place = self.rng.uniform(-_REACH, _REACH, 2)
            gaps = np.hypot(*(self.locations[others, frame, :2] - place).T)
            room = [self.solids[index].radius + self.solids[i].radius + 0.25 for i in others]
            if np.all(gaps > room):
                return place
        return place
