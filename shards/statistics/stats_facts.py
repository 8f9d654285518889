"""Counts -> the figures that `stats` gives as data."""

from typing import Any

import numpy as np

from toto.shards.dataset import Dataset
from toto.shards.statistics.contexts import entropy_bits
from toto.shards.statistics.reading import Reading
from toto.shards.statistics.source_extremes import QUANTILES, SourceExtremes
from toto.shards.statistics.spectrum import Spectrum
from toto.shards.statistics.tally import Tally

TOP_CODES = 10
DEAD_CODES = 20  # named
WINDOWS = tuple((frames, stride) for frames in (4, 8, 16, 32, 64) for stride in (1, 2, 4))  # stored frames
STRETCHES = (2, 4, 8, 16, 32, 64)  # frames


def facts(reading: Reading, tally: Tally, extremes: SourceExtremes) -> dict[str, Any]:
    """Everything but the groups."""
    codes = tally.codes
    bits = entropy_bits(codes)
    pairs = {name: counts.facts() for name, counts in tally.pairs.items()}
    return {
        **reading.facts(),
        "rows": tally.rows,
        "frames": sum(tally.grids.values()),
        "codes": int(codes.sum()),
        "grids": {f"{h}x{w}": frames for (h, w), frames in tally.grids.most_common(10)},
        "codebook": _codebook(codes),
        "entropy_bits": bits,
        "perplexity": 2**bits,
        "given": pairs,
        "positions": {"bits": _map(tally)},
        "static": {
            "compared": tally.compared,
            "share": tally.static / tally.compared if tally.compared else None,
            "stretches": _stretches(tally.stretches),
        },
        "frames_per_run": _frames_per_run(reading),
        "windows": _windows(reading.dataset),
        "bytes": _bytes(reading, bits, [pair["bits"] for pair in pairs.values()]),
        "sources": extremes.facts(),
    }


def _codebook(codes: np.ndarray) -> dict[str, Any]:
    used, total = int(np.count_nonzero(codes)), int(codes.sum())
    top = np.argsort(-codes, kind="stable")[:TOP_CODES]
    return {
        "vocab_size": len(codes),
        "used": used,
        "share": used / len(codes),
        "dead": len(codes) - used,
        "first_dead": np.flatnonzero(codes == 0)[:DEAD_CODES].tolist(),
        "top": [
            {"code": int(code), "count": int(codes[code]), "share": float(codes[code] / total)}
            for code in top
            if codes[code]
        ],
        "curve": Spectrum.of(codes).curve(),
    }


def _map(tally: Tally) -> list[list[float]]:
    """Entropy in bits at each place of the frame."""
    return np.array([entropy_bits(place) for place in tally.positions]).reshape(tally.map_shape).round(6).tolist()


def _stretches(histogram: np.ndarray) -> dict[str, Any] | None:
    """How long cells of videos keep a code; shares are of the codes, so that a long stretch counts as long as it is."""
    lengths = np.arange(len(histogram))
    codes = histogram * lengths
    if not codes.sum():
        return None
    half = np.searchsorted(np.cumsum(codes), codes.sum() / 2)
    return {
        "mean_frames": float(codes.sum() / histogram.sum()),
        "median_frames_of_a_code": int(half),
        "longest_frames": int(lengths[histogram > 0].max()),
        "share_of_codes": {str(n): float(codes[n:].sum() / codes.sum()) for n in STRETCHES},
        "histogram": {str(n): int(histogram[n]) for n in np.flatnonzero(histogram).tolist()},
    }


def _frames_per_run(reading: Reading) -> dict[str, Any] | None:
    """Of the manifest, so of all rows of videos, also where only a sample is read."""
    counts: dict[int, int] = {}
    for pairs in reading.shards["runs_by_length"].to_pylist():
        for length, rows in pairs:
            counts[length] = counts.get(length, 0) + rows
    if not counts:
        return None
    lengths = np.array(sorted(counts))
    rows = np.array([counts[length] for length in lengths.tolist()])
    ranks = np.searchsorted(np.cumsum(rows), np.ceil(np.array(QUANTILES) * rows.sum()).clip(1))
    return {
        "rows": int(rows.sum()),
        "mean": float((lengths * rows).sum() / rows.sum()),
        "quantiles": dict(zip(map(str, QUANTILES), lengths[ranks].tolist(), strict=True)),
    }


def _windows(dataset: Dataset) -> list[dict[str, int]]:
    """Windows that do not overlap, by the manifest; those of which there are none are left out."""
    counted = [(frames, stride, dataset.windows(frames, stride)) for frames, stride in WINDOWS]
    return [{"frames": frames, "stride": stride, "windows": count} for frames, stride, count in counted if count]


def _bytes(reading: Reading, bits: float, given: list[float | None]) -> dict[str, Any]:
    """Of the shards' files; the bounds are what a code costs when each is coded by its share alone, or by its share
    given one neighbour."""
    size, tokens = (sum(reading.shards[name].to_pylist()) for name in ("bytes", "tokens"))
    known = [value for value in given if value is not None]
    return {
        "per_token": size / tokens,
        "bound_alone": bits / 8,
        "bound_given_a_neighbour": min(known) / 8 if known else None,
    }
