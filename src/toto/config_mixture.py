"""What an entry of `mixtures:` holds: a weight for each dataset, and phases in which the weights change.

paper: {howto100m: 60, k600: 10}                  dataset -> weight
demo: {demo: {video: 3, image: 1}}                dataset -> a weight for each kind
staged: {phases: [{weights: …}, {from_step: 5000, weights: …}]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from toto import config_layers as layers
from toto.config_rules import Rule
from toto.errors import UsageError

MOST_WEIGHT = 10_000
Kind = Literal["video", "image"]
Unit = Literal["step", "sequence", "tokens"]
STARTS: dict[str, Unit] = {"from_step": "step", "from_sequence": "sequence", "from_tokens": "tokens"}
Weights = Mapping[str, int | Mapping[Kind, int]]


@dataclass(frozen=True)
class PhaseConfig:
    """Weights that hold from a step, a sequence, or so many visual tokens on."""

    start: int
    unit: Unit
    weights: Weights


@dataclass(frozen=True)
class MixtureConfig:
    """Weights that hold from the start, and the phases after it."""

    weights: Weights  # datasets without a weight are left out
    later: tuple[PhaseConfig, ...] = ()

    @property
    def datasets(self) -> list[str]:
        """Names of all datasets of all phases, in the order in which they come."""
        return list(
            dict.fromkeys(
                name for weights in (self.weights, *(phase.weights for phase in self.later)) for name in weights
            )
        )


def _is_weight(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST_WEIGHT


def _accepts(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value) and set(value) <= {*get_args(Kind)} and all(map(_is_weight, value.values()))
    return _is_weight(value) or isinstance(value, list)


VALUES = Rule(f"a whole number from 0 to {MOST_WEIGHT}, or one for each of video and image", _accepts)


def mixture(values: dict[str, Any], known: dict[str, Any], where: str) -> MixtureConfig:
    """An entry, checked; UsageError names what is wrong and where."""
    if "phases" not in values:
        return MixtureConfig(_weights(values, known, where))
    phases = values["phases"]
    if len(values) > 1 or not isinstance(phases, list) or not phases:
        raise UsageError(f"{where}: either datasets with weights, or `phases`, a list of them")
    first, *others = (_phase(phase, known, f"{where}.phases[{i}]") for i, phase in enumerate(phases))
    if first.start:
        raise UsageError(f"{where}.phases[0]: starts at {first.unit} {first.start}; the first phase starts at 0")
    return MixtureConfig(first.weights, tuple(others))


def _phase(value: Any, known: dict[str, Any], where: str) -> PhaseConfig:
    if not isinstance(value, dict) or not set(value) <= {"weights", *STARTS} or "weights" not in value:
        raise UsageError(f"{where}: a phase has `weights` and one of {', '.join(STARTS)}")
    starts = [key for key in STARTS if key in value]
    if len(starts) > 1 or (not starts and not where.endswith("[0]")):
        raise UsageError(f"{where}: one of {', '.join(STARTS)} says where it starts")
    start = value[starts[0]] if starts else 0
    if type(start) is not int or not 0 <= start < 2**62:
        raise UsageError(f"{where}.{starts[0]}: {start!r} is not a whole number of 0 or more")
    given = value["weights"]
    if not isinstance(given, dict) or not all(_accepts(weight) for weight in given.values()):
        raise UsageError(f"{where}.weights: datasets, each with {VALUES.allowed}")
    return PhaseConfig(start, STARTS[starts[0]] if starts else "step", _weights(given, known, f"{where}.weights"))


def _weights(given: dict[str, Any], known: dict[str, Any], where: str) -> Weights:
    for dataset, weight in given.items():
        if dataset not in known:
            raise UsageError(f"{where}: {layers.unknown('dataset', dataset, known)}")
        if isinstance(weight, list):
            raise UsageError(f"{where}.{dataset}: a list is not {VALUES.allowed}")
    sums = {dataset: weight if isinstance(weight, int) else sum(weight.values()) for dataset, weight in given.items()}
    if not 1 <= sum(sums.values()) <= MOST_WEIGHT:
        raise UsageError(f"{where}: weights sum to {sum(sums.values())}, not 1 to {MOST_WEIGHT}")
    return {dataset: weight for dataset, weight in given.items() if sums[dataset]}
