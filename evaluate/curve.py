"""Accuracy by layer, as a picture: a line with its interval for each pooling, the one-frame control, and chance."""

import io
from dataclasses import dataclass
from typing import Any

from toto.evaluate.results import Result
from toto.evaluate.settings import ONE_FRAME, POOLINGS


@dataclass(frozen=True)
class Theme:
    """Colours of a picture; those of the pages (shards/look/page_style.py)."""

    ground: str
    ink: str
    soft: str
    line: str
    poolings: tuple[str, ...]  # told apart with any colour vision, and by their markers


LIGHT = Theme("#ffffff", "#1b1d22", "#636975", "#e4e4e0", ("#2f5fd0", "#c2571a", "#15836b"))
DARK = Theme("#1b1d21", "#e9e9e6", "#9ba1ad", "#2d3036", ("#8fb0ff", "#f0a06a", "#5fcfb4"))
MARKERS = ("o", "s", "^")


def draw_curve(result: Result, theme: Theme = LIGHT) -> bytes:
    """A PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.2, 4.7), dpi=200, facecolor=theme.ground, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=theme.ground)
    for pooling, colour, marker in zip(POOLINGS, theme.poolings, MARKERS, strict=True):
        _line(axes, result, pooling, {"color": colour, "marker": marker, "linewidth": 2.2, "markersize": 6})
    control = {"color": theme.soft, "marker": "D", "linewidth": 1.4, "markersize": 4, "linestyle": (0, (4, 2))}
    _line(axes, result, ONE_FRAME, control)
    chance = 100 * result.value["chance"]
    axes.axhline(chance, color=theme.soft, linewidth=1, linestyle=":", label=f"chance ({chance:.1f} %)")
    _ring(axes, result, theme)
    _style(axes, result, theme)
    out = io.BytesIO()
    figure.savefig(out, format="png", facecolor=theme.ground)
    return out.getvalue()


def _line(axes: Any, result: Result, pooling: str, look: dict[str, Any]) -> None:
    heads = [head for head in result.value["heads"] if head["pooling"] == pooling]
    if not heads:
        return
    layers = [head["layer"] for head in heads]
    low, high = ([100 * head["interval"][i] for head in heads] for i in (0, 1))
    name = "one frame (control)" if pooling == ONE_FRAME else pooling
    axes.plot(layers, [100 * head["top1"] for head in heads], label=name, **look)
    if len(layers) > 1:
        axes.fill_between(layers, low, high, color=look["color"], alpha=0.11, linewidth=0)
    else:
        axes.vlines(layers, low, high, color=look["color"], alpha=0.5)


def _ring(axes: Any, result: Result, theme: Theme) -> None:
    layer, pooling = result.chosen
    top1 = 100 * result.head(layer, pooling)["top1"]
    axes.plot(
        [layer], [top1], "o", markersize=15, markerfacecolor="none", markeredgecolor=theme.ink, markeredgewidth=1.6
    )
    axes.annotate(
        f"{top1:.1f} %",
        (layer, top1),
        xytext=(0, 13),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=theme.ink,
        fontweight="bold",
    )


def _style(axes: Any, result: Result, theme: Theme) -> None:
    heads = result.value["heads"]
    layers = sorted({head["layer"] for head in heads})
    axes.set_xticks(layers, ["embedding" if layer == 0 else str(layer) for layer in layers], color=theme.soft)
    axes.set_xlabel("features after block", color=theme.soft)
    axes.set_ylabel("top-1 accuracy, %", color=theme.soft)
    axes.set_ylim(0, min(100, 100 * max(head["interval"][1] for head in heads) + 9))
    axes.margins(x=0.04)
    axes.tick_params(colors=theme.soft, length=0)
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.set_axisbelow(True)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(theme.line)
    axes.figure.legend(loc="outside upper left", ncols=5, frameon=False, labelcolor=theme.ink)
