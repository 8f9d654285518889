"""What `stats` found, on one picture: codes by rank, entropy over the frame, how long codes stay, sources by motion."""

from typing import Any

import numpy as np

from toto.shards.statistics.plots import COLOURS, SOFT, draw, tidy
from toto.shards.statistics.source_extremes import BINS


def stats_picture(value: dict[str, Any]) -> bytes:
    """A PNG; a part without data says so."""

    def paint(figure: Any, axes: Any) -> None:
        (codes, places), (stretches, sources) = axes
        _codes(codes, value)
        _places(figure, places, value)
        _stretches(stretches, value["static"]["stretches"])
        _sources(sources, value["sources"])

    return draw((10.5, 7), 2, 2, paint)


def _codes(axes: Any, value: dict[str, Any]) -> None:
    book = value["codebook"]
    axes.plot(book["curve"]["rank"], np.array(book["curve"]["count"]) / value["codes"], color=COLOURS[0], linewidth=1.8)
    axes.set(xscale="log", yscale="log", xlabel="rank of the code", ylabel="share of all codes")
    _title(axes, f"Codes: {book['used']:,} of {book['vocab_size']:,} used, {value['entropy_bits']:.2f} bits")
    tidy(axes)


def _places(figure: Any, axes: Any, value: dict[str, Any]) -> None:
    image = axes.imshow(np.array(value["positions"]["bits"]), cmap="viridis")
    axes.set(xticks=[], yticks=[])
    _title(axes, "Entropy at each place of the frame")
    figure.colorbar(image, ax=axes, shrink=0.9, label="bits a code")


def _stretches(axes: Any, stretches: dict[str, Any] | None) -> None:
    if stretches is None:
        _nothing(axes, "How long a code stays", "no videos")
        return
    lengths = np.array([int(n) for n in stretches["histogram"]])
    codes = lengths * np.array(list(stretches["histogram"].values()))
    at_least = 100 * np.cumsum(codes[::-1])[::-1] / codes.sum()
    axes.step(lengths, at_least, where="post", color=COLOURS[0], linewidth=1.8)
    axes.set(xscale="log", xlabel="frames in a row with the same code, at least", ylabel="codes, %", ylim=(0, 100))
    ticks = [1 << i for i in range(int(lengths.max()).bit_length() + 1)]
    axes.set_xticks(ticks, [str(n) for n in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(1, max(2, int(lengths.max())))
    _title(axes, f"How long a code stays: {stretches['mean_frames']:.2f} frames on average")
    tidy(axes)


def _sources(axes: Any, sources: dict[str, Any]) -> None:
    if not sum(sources["static_histogram"]):
        _nothing(axes, "Sources by what stands still", "no videos of two frames")
        return
    axes.bar((np.arange(BINS) + 0.5) * 100 / BINS, sources["static_histogram"], width=92 / BINS, color=COLOURS[0])
    axes.set(xlabel="codes equal to those a frame before, %", ylabel="sources", xlim=(0, 100))
    _title(axes, f"Sources by what stands still: {100 * sources['static_share']['0.5']:.0f} % is the median")
    tidy(axes, "y")


def _nothing(axes: Any, title: str, why: str) -> None:
    axes.text(0.5, 0.5, why, ha="center", va="center", color=SOFT, transform=axes.transAxes)
    axes.set_axis_off()
    _title(axes, title)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10.5)
