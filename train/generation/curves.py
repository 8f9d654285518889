"""How true frames are, the further the worse: accuracy and loss of each frame in every regime, as one picture."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

NAMES = {"free": "free: after what was made", "frame": "frame: after true frames", "token": "token: after true codes"}
COLOURS = {"free": "#2563eb", "frame": "#0d9488", "token": "#d97706"}
ROOM = 1.05  # of the highest value: its mark is seen whole


def picture(regimes: dict[str, dict[str, Any]], context_frames: int) -> bytes:
    """A PNG of what `generate.by_frame` gives of each regime; each has truth; frames count from 1, as in captions."""
    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    copies: dict[tuple[float | None, ...], list[str]] = {}  # after true frames copying is the same in two regimes
    for regime, found in regimes.items():
        for axes, key in ((left, "accuracy_by_frame"), (right, "loss_by_frame")):
            _line(axes, found[key], NAMES[regime], COLOURS[regime], "-")
        if found["copy_accuracy_by_frame"] is not None:
            copies.setdefault(tuple(found["copy_accuracy_by_frame"]), []).append(regime)
    for values, same in copies.items():
        _line(left, values, f"{', '.join(same)}: by copying", COLOURS[same[0]], ":")
    frames = len(next(iter(regimes.values()))["accuracy_by_frame"])
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if frames > context_frames:
            axes.axvline(context_frames + 0.5, color="#9ca3af", linewidth=0.8, linestyle="--", zorder=0)
        axes.set(xlabel="frame" + (" (line: the context is full)" if frames > context_frames else ""))
    left.set(ylim=(0, ROOM), ylabel="share of true codes", title="Accuracy")
    right.set(ylim=(0, ROOM * right.get_ylim()[1]), ylabel="nats a code", title="Loss")
    # below both: inside, lines of all heights leave no room for it
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize="small"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _line(axes: Axes, values: Sequence[float | None], label: str, colour: str, style: str) -> None:
    points = np.array([np.nan if value is None else value for value in values])
    axes.plot(1 + np.arange(len(points)), points, style, label=label, color=colour, marker="o", markersize=3)
