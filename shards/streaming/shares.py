"""What a person asks of a mixture, turned into a recipe's parts and whole weights, phase by phase.

    {demo: 3, k600: 1}, later {demo: {video: 1, image: 2}}  ->  parts demo:video, demo:image, k600  ->  Phase, Phase

A dataset's weight is one number, which its videos and images share as they share its sequences, or one for each kind.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from toto.errors import UsageError
from toto.shards.streaming.candidate import Kind
from toto.shards.streaming.mixture import MOST_WEIGHT, Phase

Weight = int | Mapping[Kind, int]
Weights = Mapping[str, Weight]  # dataset -> weight; one that is not named has none
Unit = Literal["step", "sequence", "tokens"]


@dataclass(frozen=True)
class Later:
    """Weights that hold from a step, a sequence, or so many codes on; 0 is the first step or sequence."""

    start: int
    unit: Unit
    weights: Weights

    def from_sequence(self, batch_sequences: int, context: int) -> int:
        """The first sequence that they hold for."""
        if self.unit == "tokens":
            return -(-self.start // context)
        return self.start * (batch_sequences if self.unit == "step" else 1)


def total(weight: Weight) -> int:
    """Of all kinds together."""
    return weight if isinstance(weight, int) else sum(weight.values())


def check_weights(weights: Sequence[Weight]) -> None:
    """UsageError unless they are whole numbers of 0 or more with a sum of 1 … 10,000."""
    numbers = [n for weight in weights for n in ([weight] if isinstance(weight, int) else weight.values())]
    if min(numbers, default=-1) < 0 or not 1 <= sum(numbers) <= MOST_WEIGHT:
        raise UsageError(f"weights {numbers}: whole numbers, 0 or more, with a sum of at most {MOST_WEIGHT:,}")


def kinds_of(name: str, phases: Sequence[Weights], kinds: Collection[Kind]) -> set[Kind]:
    """Those of the kinds for which a dataset has a weight in any phase; UsageError where there is none."""
    found: set[Kind] = set()
    for weights in phases:
        weight = weights.get(name, 0)
        if isinstance(weight, int):
            found |= {"video", "image"} if weight else set()
        else:
            found |= {kind for kind, number in weight.items() if number}
    if not found & {*kinds}:
        raise UsageError(f"{name}: its weight for {' and '.join(sorted(kinds))} is 0 throughout; leave it out")
    return found & {*kinds}


def share_out(weights: Weights, counted: Mapping[str, Mapping[Kind, int]]) -> tuple[int, ...]:
    """A phase's weights of the parts, by dataset and kind in the order of `counted` (sequences an epoch of each).

    All are scaled up where one has to be split: to a sum of 10,000, or twice theirs where that is more. UsageError
    where a kind has a weight and the dataset holds none of it.
    """
    check_weights([weights.get(name, 0) for name in counted])
    for name, weight in weights.items():
        missing = [] if isinstance(weight, int) else [k for k, n in weight.items() if n and k not in counted[name]]
        if missing:
            raise UsageError(f"{name}: a weight for {missing[0]}, of which it holds none or the recipe uses none")
    splits = any(len(kinds) > 1 and _is_shared(weights.get(name, 0)) for name, kinds in counted.items())
    scale = max(MOST_WEIGHT // sum(map(total, weights.values())), 2) if splits else 1
    return tuple(n for name, kinds in counted.items() for n in _split(weights.get(name, 0), scale, kinds))


def _is_shared(weight: Weight) -> bool:
    return isinstance(weight, int) and weight > 0


def _split(weight: Weight, scale: int, sequences: Mapping[Kind, int]) -> list[int]:
    if not isinstance(weight, int):
        return [weight.get(kind, 0) * scale for kind in sequences]
    whole = weight * scale
    if len(sequences) == 1 or not whole:
        return [whole] * len(sequences)
    video = min(max(1, round(whole * sequences["video"] / sum(sequences.values()))), whole - 1)
    return [video, whole - video]


def phases_of(
    first: Weights,
    later: Sequence[Later],
    counted: Mapping[str, Mapping[Kind, int]],
    batch_sequences: int,
    context: int,
) -> tuple[Phase, ...]:
    """The phases of a recipe; UsageError where they do not start one after the other."""
    starts = [0, *(phase.from_sequence(batch_sequences, context) for phase in later)]
    if sorted(set(starts)) != starts:
        raise UsageError(f"phases from sequences {', '.join(map(str, starts))}: each must start after the one before")
    weights = [first, *(phase.weights for phase in later)]
    return tuple(Phase(start, share_out(asked, counted)) for start, asked in zip(starts, weights, strict=True))
