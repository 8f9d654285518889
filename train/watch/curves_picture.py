"""Losses over steps, tokens and compute: of each run a line for training, and a dashed one with dots for held-out data.

Steps are drawn evenly, tokens and compute in powers of ten. What a run begins with, some nine nats, is cut off.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from toto.train.watch.curves import Curve
from toto.train.watch.progress import amount

COLOURS = ("#2f5fd0", "#c2571a", "#15836b", "#9333ea", "#be123c", "#64748b", "#a16207", "#0891b2")
BEGINNING = 0.02  # of the steps of a run
MOST_MARKS = 40  # with more held-out losses, the line alone is drawn

Over = Callable[[Curve, np.ndarray], np.ndarray]
OVER: dict[str, Over] = {  # label of the axis -> where a number of steps lies on it
    "steps": lambda curve, steps: steps,
    "visual tokens": Curve.tokens,
    "FLOPs of training (causal attention)": Curve.flops,
}


def picture(curves: Sequence[Curve], over: Sequence[str] = tuple(OVER)) -> bytes:
    """A PNG with a panel for each of the axes that are named."""
    figure = Figure(figsize=(5.0 * len(over) + (4.2 if len(over) == 1 else 0), 3.8), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(over), sharey=True, squeeze=False)[0]
    low, high = _limits(curves)
    for axes, label in zip(panels, over, strict=True):
        for i, curve in enumerate(curves):
            _draw(axes, curve, OVER[label], COLOURS[i % len(COLOURS)])
        if label != "steps":
            axes.set(xscale="log", xlim=(min(_entry(curve, OVER[label], high) for curve in curves), None))
            _label_few(axes)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#eceef2", linewidth=0.8)
    panels[0].set(ylabel="nats a token", ylim=(low, high))
    panels[0].legend(frameon=False, fontsize="small")
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _draw(axes: Axes, curve: Curve, over: Over, colour: str) -> None:
    steps, losses = curve.means()
    name = curve.name.replace("$", r"\$")  # no formula
    label = f"{name} ({amount(curve.cost.parameters)} parameters)"
    axes.plot(over(curve, steps), losses, color=colour, linewidth=1.3, label=label)
    if len(curve.held_out):
        marks = "o" if len(curve.held_out) <= MOST_MARKS else ""
        at = over(curve, curve.held_out_steps)
        look: dict[str, Any] = {"linestyle": (0, (3, 1.5)), "marker": marks, "markersize": 3.5}
        axes.plot(at, curve.held_out, color=colour, linewidth=1.3, label=f"{name}, held out", **look)


def _label_few(axes: Axes) -> None:
    """Numbers at powers of ten, and at 2 and 5 times them where there are few: between them they would overlap."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(math.inf, math.inf)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _entry(curve: Curve, over: Over, high: float) -> float:
    """Where the training curve comes down to `high`."""
    steps, losses = curve.means()
    return float(over(curve, steps[np.argmax(losses <= high)][None])[0])


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """From below the lowest loss to above the highest one after the beginning."""
    later = [curve.means()[1][curve.means()[0] >= BEGINNING * curve.steps[-1]] for curve in curves]
    values = np.concatenate([*later, *(curve.held_out for curve in curves)])
    margin = 0.05 * max(float(np.ptp(values)), 0.1)
    return float(values.min()) - margin, float(values.max()) + margin
