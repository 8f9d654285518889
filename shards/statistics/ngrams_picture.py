"""The paper's Figs. 3, 12 and 13 for any datasets: a row for each n, one line for each dataset.

Left: how often the n-gram of each rank occurs, on log-log axes. Right: which share of all occurrences the most
frequent n-grams cover. For single codes the right axis goes over the whole vocabulary, so that a line reaches 100 %
where the codes in use end: the paper's coverage.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from toto.plain import plain
from toto.shards.statistics.plots import draw, look, tidy

NAME_LENGTH = 40


def ngrams_picture(results: Sequence[dict[str, Any]], names: Sequence[str]) -> bytes:
    """A PNG of what `count_ngrams` found in one dataset or several, all of the same n."""
    sizes = list(results[0]["grams"])

    def paint(figure: Any, axes: Any) -> None:
        for row, n in zip(axes, sizes, strict=True):
            for i, (result, name) in enumerate(zip(results, names, strict=True)):
                _lines(row, result, n, label(name), i)
            _axes(row, n)
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)

    return draw((10.5, 0.5 + 3.1 * len(sizes)), len(sizes), 2, paint)


def label(name: str) -> str:
    """A name that fits into a legend; its end says most."""
    name = plain(name)
    return name if len(name) <= NAME_LENGTH else f"…{name[-NAME_LENGTH + 1 :]}"


def _lines(row: Any, result: dict[str, Any], n: str, name: str, i: int) -> None:
    grams = result["grams"][n]
    curve = grams["curve"]
    if not curve["rank"]:
        return
    frequency, cover = row
    style = look(i)
    counts = np.array(curve["count"]) / grams["occurrences"]
    frequency.plot(curve["rank"], counts, label=f"{name} ({result['vocab_size']:,} codes)", **style)
    covered = 100 * np.array([0.0, *curve["covered"]])
    if n == "1":
        ends = 100 * np.array([0, *curve["rank"]]) / grams["possible"]
        cover.plot(np.append(ends, 100), np.append(covered, 100), label=f"{_percent(grams['coverage'])} used", **style)
    else:
        cover.plot(np.array([1, *curve["rank"]]), covered, label=f"{grams['distinct']:,} different", **style)
    cover.plot(
        [ends[-1] if n == "1" else curve["rank"][-1]], [100], "o", color=style["color"], markersize=5, clip_on=False
    )


def _axes(row: Any, n: str) -> None:
    frequency, cover = row
    frequency.set(xscale="log", yscale="log", xlabel=f"rank of the {n}-gram", ylabel="share of occurrences")
    frequency.set_title(f"{n}-grams: distribution", loc="left", fontsize=10.5)
    if n == "1":
        cover.set(xlabel="most frequent codes, % of the vocabulary", xlim=(0, 100))
    else:
        cover.set(xscale="log", xlabel=f"most frequent {n}-grams")
    cover.set(ylabel="occurrences covered, %", ylim=(0, 100))
    cover.set_title(f"{n}-grams: coverage", loc="left", fontsize=10.5)
    cover.legend(frameon=False, fontsize=9, loc="lower right" if n == "1" else "upper left")
    for axes in row:
        tidy(axes)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
