"""Pictures of figures by matplotlib, where it is there (toto-video[view]); plain axes, one look for all of them."""

import io
from collections.abc import Callable
from importlib import import_module
from typing import Any

NO_MATPLOTLIB = "pictures of figures need matplotlib: pip install 'toto-video[view]'"
COLOURS = ("#2f5fd0", "#c2571a", "#15836b", "#8a4fbf", "#b8860b", "#636975")  # told apart with any colour vision
STYLES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 2, 1, 2)))
INK, SOFT, LINE = "#1b1d22", "#636975", "#e4e4e0"
DPI = 150


def has_matplotlib() -> bool:
    """Whether pictures can be drawn here."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        return False
    return True


def look(i: int) -> dict[str, Any]:
    """Colour and line of the i-th of several things in one plot."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)], "linewidth": 1.8}


def draw(size: tuple[float, float], rows: int, columns: int, paint: Callable[[Any, Any], None]) -> bytes:
    """A PNG of `size` inches; `paint` gets the figure and its axes [rows][columns]."""
    figure = import_module("matplotlib.figure").Figure(figsize=size, dpi=DPI, layout="constrained")
    import_module("matplotlib.backends.backend_agg").FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    paint(figure, axes)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def tidy(axes: Any, grid: str = "both") -> None:
    """Thin lines behind the data, no box around it."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors=SOFT, labelcolor=INK, which="both")
    axes.grid(axis=grid, color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
