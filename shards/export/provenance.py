"""Where an exported piece comes from: source, run, view, frame numbers, times, label, crop; as a dict and as columns.

Labels are those of the dataset's `labels` tables, which are the truth; else the one that stands in the row.
"""

from typing import Any

import pyarrow as pa

from toto.shards.dataset import Dataset
from toto.shards.ids import KIND_IMAGE, KIND_VIDEO
from toto.shards.row import Row, Window

KINDS = {KIND_VIDEO: "video", KIND_IMAGE: "image"}
LABEL_TABLES = {"video": "labels", "image": "image_labels"}

# (name, type, whether it may be null): docs/shards.md explains each
FIELDS = [
    ("source", pa.string(), False),
    ("kind", pa.string(), False),
    ("run", pa.int64(), False),
    ("view", pa.int64(), False),
    ("label", pa.int64(), True),
    ("frame_index", pa.list_(pa.int64()), False),
    ("pts_us", pa.list_(pa.int64()), True),
    ("crop", pa.list_(pa.int64()), False),
    ("grid", pa.list_(pa.int64()), False),
    ("flags", pa.int64(), False),
    ("row_id", pa.string(), False),
]


class Provenance:
    """Looks up what is known of a piece; what a whole row has in common, once a row."""

    def __init__(self, dataset: Dataset) -> None:
        known = dataset.info["files"]["annotations"]
        self._labels = {kind: dataset.labels(name) for kind, name in LABEL_TABLES.items() if name in known}
        if "image" not in self._labels:
            self._labels["image"] = self._labels.get("video", {})
        self._row: Row | None = None  # the one of the piece before: windows of a row come together

    def of(self, window: Window) -> dict[str, Any]:
        """A value for each of FIELDS, JSON-ready."""
        if window.row is not self._row:
            self._row, self._facts = window.row, self._of_row(window.row)
            self._frames, self._times = window.row.frame_index, window.row.pts_us
        frames = self._frames[window.positions].tolist()
        times = None if self._times is None else self._times[window.positions].tolist()
        return {**self._facts, "frame_index": frames, "pts_us": times}

    def _of_row(self, row: Row) -> dict[str, Any]:
        kind = KINDS[row.kind]
        return {
            "source": row.source,
            "kind": kind,
            "run": row.run,
            "view": row.view,
            "label": self._labels.get(kind, {}).get(row.source, row.label),
            "crop": list(row.crop),
            "grid": [row.grid_h, row.grid_w],
            "flags": row.flags,
            "row_id": row.row_id.hex(),
        }
