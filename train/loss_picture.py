"""Fig. 10 for any model: the loss along a sequence, by frame with its sources and the baselines, and within a frame."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy import arange, array, ndarray

COLOURS = {"model": "#2563eb", "copy": "#d97706", "unigram": "#9ca3af"}
OF_SOURCES = ("#0d9488", "#db2777", "#7c3aed", "#65a30d", "#0891b2", "#b45309")
ERRORS = 2  # standard errors to each side: about 95 %


def picture(value: dict[str, Any]) -> bytes:
    """A PNG of what `loss-by-position` found."""
    figure = Figure(figsize=(14, 3.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    along, by_frame, within = figure.subplots(1, 3, width_ratios=[2.2, 1.6, 1])
    _along(along, value)
    _by_frame(by_frame, value)
    several = len(value["grid"]) > 1
    image = within.imshow(value["within_frame"], cmap="viridis")
    within.set(title="Within a frame" + (", after the first" if several else ""), xticks=[], yticks=[])
    figure.colorbar(image, ax=within, shrink=0.85, label="nats a token")
    for axes in (along, by_frame):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _along(axes: Axes, value: dict[str, Any]) -> None:
    grid = array(value["grid"])
    cells = grid[0].size
    _line(axes, arange(grid.size), grid.reshape(-1), value["grid_error"], color=COLOURS["model"], linewidth=0.8)
    for start in range(cells, grid.size, cells):
        axes.axvline(start, color="#e5e7eb", linewidth=0.8, zorder=0)
    axes.set(xlabel="position (lines: where a frame starts)", ylabel="nats a token", title="Along the sequence")


def _by_frame(axes: Axes, value: dict[str, Any]) -> None:
    frames = arange(len(value["by_frame"]))
    look: dict[str, Any] = {"marker": "o", "markersize": 3.5}
    for name in ("unigram", "copy"):
        if f"{name}_by_frame" in value:
            axes.plot(frames, value[f"{name}_by_frame"], label=name, color=COLOURS[name], **look)
    if len(value["by_source"]) > 1:
        for i, (name, part) in enumerate(value["by_source"].items()):
            colour = OF_SOURCES[i % len(OF_SOURCES)]
            _line(axes, frames, part["by_frame"], part["by_frame_error"], color=colour, linewidth=1, label=name)
    _line(axes, frames, value["by_frame"], value["by_frame_error"], color=COLOURS["model"], label="model", **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"frame (bands: {ERRORS} standard errors)", ylim=(0, None), title="By frame")
    axes.legend(frameon=False, fontsize="small")


def _line(axes: Axes, x: ndarray, y: Any, error: Any, color: str, **look: Any) -> None:
    """A line, in a band of its standard errors where they are known."""
    middle = array(y)
    axes.plot(x, middle, color=color, **look)
    if error is not None:
        far = ERRORS * array(error).reshape(-1)
        axes.fill_between(x, middle - far, middle + far, color=color, alpha=0.18, linewidth=0)
