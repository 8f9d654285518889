"""Two ways of one thing, side by side: taken in turns in one run, so that a busy machine slows both."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import click

Line = dict[str, Any]  # {"what", "ours", "peer", "unit", "ratio", "bar"}


def compare(
    what: str, unit: str, ours: Callable[[], float], peer: Callable[[], float], bar: float | None, repeats: int = 5
) -> Line:
    """Each function does its work once and returns a rate; ours and the peer's in turns, after one warm-up each.

    Prints every repetition; medians and their ratio stand in the line. `bar`: the ratio that is wanted.
    """
    rates: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for function, found in zip((ours, peer), rates, strict=True):
            rate = function()
            if turn:
                found.append(rate)
    return line(what, unit, *rates, bar)


def line(what: str, unit: str, ours: Sequence[float], peer: Sequence[float], bar: float | None) -> Line:
    """Prints the repetitions of both, and gives medians and ratio."""
    mine, theirs = statistics.median(ours), statistics.median(peer)
    for name, found in (("ours", ours), ("peer", peer)):
        click.echo(f"  {name} " + " ".join(f"{rate:,.4g}" for rate in found) + f" {unit}")
    wanted = "" if bar is None else f" (wanted: {bar:g})"
    click.echo(f"{what}: {mine:,.4g} against {theirs:,.4g} {unit}, {mine / theirs:.2f}×{wanted}\n")
    return {"what": what, "ours": mine, "peer": theirs, "unit": unit, "ratio": mine / theirs, "bar": bar}


def skipped(what: str, why: str) -> list[Line]:
    """Says that something is not measured here, and why."""
    click.echo(f"{what}: not measured here: {why}\n")
    return []
