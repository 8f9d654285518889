"""Per-source tables -> how the sources are spread, and which ones stand out; 20 bytes a source in memory."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
BINS = 20  # of the histogram of static shares, 0 to 1
NAMED = 20  # sources at each end
NAMED_COLUMNS = ["source", "split", "label", "frames", "codes_used", "entropy_bits", "static_share"]
FIGURES = ("static_share", "entropy_bits", "codes_used")


class SourceExtremes:
    """Takes per-source tables in any number; keeps three figures a source, and the sources at the ends."""

    def __init__(self) -> None:
        self._figures: dict[str, list[np.ndarray]] = {name: [] for name in FIGURES}
        self._most_static: pa.Table | None = None
        self._least_diverse: pa.Table | None = None

    def add(self, table: pa.Table) -> None:
        """Takes a table in."""
        for name, known in self._figures.items():
            known.append(pc.drop_null(table[name]).to_numpy().astype(np.float64 if name != "codes_used" else np.int32))
        videos = table.filter(pc.is_valid(table["static_share"]))
        self._most_static = _ends(self._most_static, videos, [("static_share", "descending"), ("source", "ascending")])
        self._least_diverse = _ends(
            self._least_diverse,
            table,
            [("entropy_bits", "ascending"), ("codes_used", "ascending"), ("source", "ascending")],
        )

    def facts(self) -> dict[str, Any]:
        """Quantiles of each figure over the sources, and the named ones."""
        if not self._figures["entropy_bits"]:
            raise ValueError("no table was added")
        return {
            "count": sum(map(len, self._figures["entropy_bits"])),
            **{name: _quantiles(np.concatenate(parts)) for name, parts in self._figures.items()},
            "static_histogram": np.histogram(np.concatenate(self._figures["static_share"]), BINS, (0, 1))[0].tolist(),
            "most_static": _lines(self._most_static),
            "least_diverse": _lines(self._least_diverse),
        }


def _lines(table: pa.Table | None) -> list[dict[str, Any]]:
    return [] if table is None else table.select(NAMED_COLUMNS).to_pylist()


def _ends(known: pa.Table | None, table: pa.Table, order: list[tuple[str, str]]) -> pa.Table:
    both = table if known is None else pa.concat_tables([known, table])
    return both.take(pc.sort_indices(both, sort_keys=order)[:NAMED])


def _quantiles(values: np.ndarray) -> dict[str, float] | None:
    """Linear interpolation between the values; null where no source has one."""
    if not len(values):
        return None
    return dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
