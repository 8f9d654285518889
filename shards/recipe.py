"""What a training run reads: parts, weights, windows and seed. `recipe.json` in the run's folder holds it.

    (name, uri, weight, split) …  --make_recipe: open, count, refuse, pin dataset ids-->  Recipe  -->  recipe.json

A recipe and a number g decide the g-th sequence. Where the shards lie does not, nor how many sequences make a batch.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from toto.errors import UsageError, UserError
from toto.plain import counted
from toto.shards.hashing import json_sha256
from toto.shards.streaming.candidate import Kind, one_grid, open_candidate, sequences_of
from toto.shards.streaming.mixture import Phase, check_phases
from toto.shards.streaming.shares import Later, Weight, check_weights, kinds_of, phases_of

FORMAT = 1
RECIPE = "recipe.json"  # in a run's folder


@dataclass(frozen=True)
class Part:
    """One kind of entries of one split of one dataset."""

    name: str
    uri: str
    dataset_id: str
    split: str
    kind: Kind


@dataclass(frozen=True)
class Recipe:
    """Everything that decides which sequence comes when."""

    parts: tuple[Part, ...]
    phases: tuple[Phase, ...]  # weights in the order of the parts
    seed: int
    frames: int  # of a window, T
    stride: int | None  # source frames from one to the next; None: as stored
    hop: int  # frames of a window from one window's start to the next
    images_per_sequence: int
    batch_sequences: int
    grid: tuple[int, int]  # codes of a frame, rows and columns

    @property
    def cells(self) -> int:
        """Codes of one frame."""
        return self.grid[0] * self.grid[1]

    @property
    def context(self) -> int:
        """Codes of one sequence; it has two ids more, start and end."""
        images_only = all(part.kind == "image" for part in self.parts)
        return (self.images_per_sequence if images_only else self.frames) * self.cells

    @property
    def id(self) -> str:
        """16 hex digits; recipes with the same id give the same g-th sequence for every g."""
        value = _plain(self)
        del value["batch_sequences"]
        for part in value["parts"]:
            del part["uri"]
        return json_sha256(value)[:16]

    def to_json(self) -> str:
        """The text of recipe.json."""
        return json.dumps({"format": FORMAT, **_plain(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, where: str = RECIPE) -> "Recipe":
        """The recipe of such a text; UserError where it is not one, names `where` and what is wrong."""
        try:
            value = json.loads(text)
            version = value.pop("format")
        except (ValueError, KeyError, AttributeError, TypeError):
            raise UserError(f"{where}: not a recipe.json that toto wrote, or damaged") from None
        if version != FORMAT:
            raise UserError(f"{where}: recipe format {version!r}; this toto reads format {FORMAT}")
        try:
            return _read(value)
        except (ValueError, TypeError, UserError) as error:
            raise UserError(f"{where}: {error}; it was changed after toto wrote it") from None


def make_recipe(
    sources: Sequence[tuple[str, str, Weight, str | None]],
    frames: int,
    stride: int | None,
    seed: int,
    batch_sequences: int | Callable[[int], int],
    images_per_sequence: int | None = None,
    hop: int | None = None,
    kinds: Collection[Kind] = get_args(Kind),
    later: Sequence[Later] = (),
) -> Recipe:
    """The recipe for these (name, uri, weight, split), of each dataset as it is sealed now.

    A dataset of videos and images becomes two parts, `name:video` and `name:image`, that share its weight as they
    share its sequences, or have one each: `{"video": 3, "image": 1}`; `kinds` leaves only those. `later` changes the
    weights. `split` None is "train", or the only one. `batch_sequences` may follow from the context. Raises UsageError
    or UserError for what does not go together: ids, grids, strides, weights, windows longer than every run.
    """
    per_image = frames if images_per_sequence is None else images_per_sequence
    step = frames if hop is None else hop
    for name, number in (("frames", frames), ("images_per_sequence", per_image), ("hop", step)):
        if number < 1:
            raise UsageError(f"{name}: {number}; at least 1")
    if seed < 0:
        raise UsageError(f"seed: {seed}; 0 or more")
    if len({name for name, *_ in sources}) < len(sources) or not sources:
        raise UsageError("a mixture needs at least one dataset, and a name for each: names may not repeat")
    first = {name: weight for name, _, weight, _ in sources}
    unknown = sorted({name for phase in later for name in phase.weights} - set(first))
    if unknown:
        raise UsageError(f"phases name {', '.join(unknown)}, which is no dataset of the mixture")
    all_weights = [first, *(phase.weights for phase in later)]
    used = {name: kinds_of(name, all_weights, kinds) for name in first}
    for weights in all_weights:
        check_weights(list(weights.values()))
    opened = [open_candidate(name, uri, split) for name, uri, _, split in sources]
    grid = one_grid(opened)
    available = {part.name: sequences_of(part, used[part.name], (frames, stride, step), per_image) for part in opened}
    held = {kind for sequences in available.values() for kind in sequences}
    if len(held) > 1 and per_image != frames:
        both = f"{counted(frames, 'frame')} and of {counted(per_image, 'image')}"
        raise UsageError(f"sequences of {both} differ in length; make them equal")
    parts = tuple(
        Part(
            part.name if len(available[part.name]) == 1 else f"{part.name}:{kind}",
            part.dataset.store.uri,
            part.dataset.dataset_id,
            part.split,
            kind,
        )
        for part in opened
        for kind in available[part.name]
    )
    check_names(parts)
    context = (frames if "video" in held else per_image) * grid[0] * grid[1]
    batch = batch_sequences if isinstance(batch_sequences, int) else batch_sequences(context)
    if batch < 1:
        raise UsageError(f"batch_sequences: {batch}; at least 1")
    phases = phases_of(first, later, available, batch, context)
    check_phases(phases)
    return Recipe(
        parts=parts,
        phases=phases,
        seed=seed,
        frames=frames,
        stride=stride,
        hop=step,
        images_per_sequence=per_image,
        batch_sequences=batch,
        grid=grid,
    )


def check_names(parts: Sequence[Part]) -> None:
    """UsageError where two parts have one name."""
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise UsageError(f"parts {', '.join(names)}: two have the same name")


def _plain(recipe: Recipe) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(recipe)))


def _read(value: dict[str, Any]) -> Recipe:
    _check_keys("recipe", value, Recipe)
    parts = tuple(_read_part(part) for part in _list("parts", value["parts"]))
    phases = tuple(_read_phase(phase) for phase in _list("phases", value["phases"]))
    grid = tuple(_whole("grid", side, 1) for side in _list("grid", value["grid"]))
    if len(grid) != 2 or not parts or len({part.name for part in parts}) < len(parts):
        raise ValueError("a recipe has parts of different names, and a grid of two numbers")
    check_phases(phases)
    if len(phases[0].weights) != len(parts):
        raise ValueError(f"{counted(len(phases[0].weights), 'weight')} for {counted(len(parts), 'part')}")
    counts = ("frames", "hop", "images_per_sequence", "batch_sequences")
    return Recipe(
        parts=parts,
        phases=phases,
        seed=_whole("seed", value["seed"], 0),
        stride=None if value["stride"] is None else _whole("stride", value["stride"], 1),
        grid=(grid[0], grid[1]),
        **{name: _whole(name, value[name], 1) for name in counts},
    )


def _read_part(value: Any) -> Part:
    _check_keys("part", value, Part)
    wrong = [name for name, item in value.items() if not isinstance(item, str)]
    if wrong or value["kind"] not in get_args(Kind):
        raise ValueError(f"part {value['name']!r}: {', '.join(wrong) or 'kind'} is not what it must be")
    return Part(**value)


def _read_phase(value: Any) -> Phase:
    _check_keys("phase", value, Phase)
    weights = [_whole("weight", weight, 0) for weight in _list("weights", value["weights"])]
    return Phase(_whole("from_sequence", value["from_sequence"], 0), tuple(weights))


def _check_keys(what: str, value: Any, kind: type) -> None:
    known = {field.name for field in fields(kind)}
    if not isinstance(value, dict) or set(value) != known:
        found = set(value) if isinstance(value, dict) else set()
        raise ValueError(f"{what}: unknown or missing keys: {', '.join(sorted(known ^ found))}")


def _list(name: str, value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: {value!r} is not a whole number of {least} or more")
    return value
