"""Fig. 10 for any model: the loss along a sequence, by frame beside the baselines', and over a frame's grid."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402

COLOURS = {"model": "#2563eb", "copy": "#d97706", "unigram": "#9ca3af"}


def picture(value: dict[str, Any]) -> bytes:
    """A PNG of what `loss-by-position` found."""
    grid = np.array(value["grid"])
    frames, height, width = grid.shape
    figure, (along, by_frame, within) = plt.subplots(
        1, 3, figsize=(14, 3.6), width_ratios=[2.2, 1.6, 1], layout="constrained"
    )
    along.plot(grid.reshape(-1), color=COLOURS["model"], linewidth=0.8)
    for start in range(height * width, frames * height * width, height * width):
        along.axvline(start, color="#e5e7eb", linewidth=0.8, zorder=0)
    along.set(xlabel="position (lines: where a frame starts)", ylabel="nats a token", title="Along the sequence")

    for name in ("unigram", "copy", "model"):
        losses = value["by_frame"] if name == "model" else value.get(f"{name}_by_frame")
        if losses:
            by_frame.plot(losses, marker="o", markersize=3.5, label=name, color=COLOURS[name])
    by_frame.set(xlabel="frame", ylim=(0, None), title="By frame")
    by_frame.legend(frameon=False)

    image = within.imshow(grid[1:].mean(0) if frames > 1 else grid[0], cmap="viridis")
    within.set(title="Within a frame" + (", after the first" if frames > 1 else ""), xticks=[], yticks=[])
    figure.colorbar(image, ax=within, shrink=0.85)
    for axes in (along, by_frame):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
