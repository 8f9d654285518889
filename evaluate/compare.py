"""Two heads on the same test sources: the difference of a metric, and its interval by a paired bootstrap.

Sources are drawn with replacement, each with both of its scores, so what makes a source hard for both cancels.
"""

from dataclasses import dataclass
from typing import Any

from toto.errors import UsageError, UserError
from toto.evaluate.interval import LEVEL, RESAMPLES, paired_bootstrap
from toto.evaluate.results import Result
from toto.evaluate.settings import METRICS, ONE_FRAME
from toto.plain import counted


@dataclass(frozen=True)
class Side:
    """One head of one result."""

    result: Result
    layer: int
    pooling: str

    @property
    def name(self) -> str:
        """`layer 4, average (probe@8f-stride4, step-000000600)`."""
        return f"layer {self.layer}, {self.pooling} ({self.result.title})"


@dataclass(frozen=True)
class Comparison:
    """a - b over the sources that both have."""

    metric: str
    a: Side
    b: Side
    values: tuple[float, float]  # the metric of a and of b
    difference: float
    interval: tuple[float, float]
    above: float  # share of resamples in which a is better
    sources: int

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if self.interval[0] > 0:
            return "a is better"
        return "b is better" if self.interval[1] < 0 else "no difference shown"

    @property
    def value(self) -> dict[str, Any]:
        """As JSON."""
        how = f"paired bootstrap, {100 * LEVEL:.0f} %, {RESAMPLES:,} resamples of {counted(self.sources, 'source')}"
        sides = {
            key: {
                "result": str(side.result.path),
                "protocol": side.result.value["protocol"],
                "checkpoint": side.result.value["checkpoint"]["id"],
                "layer": side.layer,
                "pooling": side.pooling,
                self.metric: value,
            }
            for key, side, value in zip("ab", (self.a, self.b), self.values, strict=True)
        }
        return {
            "metric": self.metric,
            **sides,
            "protocol": " - ".join(side.result.value["protocol"] for side in (self.a, self.b)),
            "difference": self.difference,
            "interval": list(self.interval),
            "interval_kind": how,
            "share_above_zero": self.above,
            "verdict": self.verdict,
        }


def side(result: Result, layer: int | None = None, pooling: str | None = None) -> Side:
    """The head of this layer and pooling; what is left open, the held-out sources decide, as they chose the result's
    own. The one-frame control is taken only where it is named."""
    if layer is None and pooling is None:
        return Side(result, *result.chosen)
    fits = [
        head
        for head in result.value["heads"]
        if layer in (None, head["layer"])
        and (head["pooling"] == pooling if pooling is not None else head["pooling"] != ONE_FRAME)
    ]
    if not fits:
        known = sorted({f"{head['layer']} {head['pooling']}" for head in result.value["heads"]})
        raise UsageError(f"{result.path}: no such head; layers and poolings: {', '.join(known)}")
    best = max(fits, key=lambda head: head["held_out_top1"])
    return Side(result, best["layer"], best["pooling"])


def compare(a: Side, b: Side, metric: str = "top1", seed: int = 0) -> Comparison:
    """The difference a - b; UserError unless both scored the same sources with the same labels."""
    tables = [s.result.predictions(s.layer, s.pooling) for s in (a, b)]
    keys = [list(zip(table["source"].to_pylist(), table["label"].to_pylist(), strict=True)) for table in tables]
    if keys[0] != keys[1]:
        both = len(set(keys[0]) & set(keys[1]))
        problem = f"{counted(both, 'source')} with the same label in both, of {len(keys[0]):,} and {len(keys[1]):,}"
        raise UserError(f"{a.result.path} and {b.result.path} cannot be compared: {problem}; probe the same split")
    x, y = (METRICS[metric](table["rank"].to_numpy(), table["probability"].to_numpy()) for table in tables)
    difference, interval, above = paired_bootstrap(x, y, seed)
    values = (float(x.mean()), float(y.mean()))
    return Comparison(metric, a, b, values, difference, interval, above, len(keys[0]))


def within(result: Result) -> list[tuple[str, Comparison]]:
    """What a result says of itself: the chosen head against the embeddings, and against one frame."""
    chosen, found = side(result), []
    poolings = {(head["layer"], head["pooling"]) for head in result.value["heads"]}
    if chosen.layer and (0, chosen.pooling) in poolings:
        found.append(
            ("the chosen head against the embeddings (layer 0)", compare(chosen, Side(result, 0, chosen.pooling)))
        )
    if any(pooling == ONE_FRAME for _, pooling in poolings):
        found.append(
            ("the chosen head against one frame (at its best layer)", compare(chosen, side(result, None, ONE_FRAME)))
        )
    return found
