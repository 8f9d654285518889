"""views/<protocol>-<8 hex>.parquet: of each clip of an evaluation protocol, which row shows it and which frames of it.

    per-source results: decoded frames, rate ─▶ the protocol's indices ─▶ places among the frames that the row stores

Written at seal from the counts alone; no shard is opened. An evaluator reads rows by these lists and decodes nothing.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.shards.protocols import SINGLE, TRAIN, Protocol, beside_grid, parse, stored_frames
from toto.shards.schema import row_id

VIEWS = "views"
VIEWS_SCHEMA = pa.schema(
    [
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("clip", pa.uint16(), nullable=False),
        pa.field("crop", pa.uint8(), nullable=False),
        pa.field("view", pa.uint8(), nullable=False),
        pa.field("row_id", pa.binary(16)),
        pa.field("positions", pa.list_(pa.int32())),
    ]
)


def protocols_of(settings: Mapping[str, Any]) -> list[Protocol]:
    """Those that the settings name, and the single middle clip where rows of these settings hold its frames."""
    stride = settings.get("stride")
    if settings.get("run_frames") != "all" or not stride:
        return []
    named, single = [parse(name) for name in settings.get("protocols", ())], parse(SINGLE)
    implied = single.on_grid(stride) and single.views(settings["crop"]) and single not in named
    return [*named, *([single] if implied else [])]


def view_tables(settings: Mapping[str, Any], final: pa.Table, labels: Mapping[str, int]) -> dict[str, pa.Table]:
    """Protocol name -> its table, of the videos among the final per-source results; none where there is no video."""
    protocols = protocols_of(settings)
    names = ("split", "key", "kind", "label", "frames_decoded", "rate", "run_lengths")
    lines = final.filter(pc.equal(final["kind"], "video")).select(names).to_pylist() if protocols else []
    videos = [line for line in lines if line["run_lengths"]]
    videos.sort(key=lambda video: (video["split"], video["key"]))
    tables = {protocol.name: _table(protocol, settings, videos, labels) for protocol in protocols}
    return {name: table for name, table in tables.items() if table.num_rows}


def source_labels(table: pa.Table) -> dict[str, int]:
    """Source -> label, of a table of labels; nothing where it has no whole numbers."""
    if not {"source", "label"} <= set(table.column_names) or not pa.types.is_integer(table["label"].type):
        return {}
    return dict(zip(table["source"].to_pylist(), table["label"].to_pylist(), strict=True))


def _table(
    protocol: Protocol, settings: Mapping[str, Any], videos: list[dict[str, Any]], labels: Mapping[str, int]
) -> pa.Table:
    """One row for each clip and crop of a video. `train` has the single clip only: the others are for tests."""
    columns: dict[str, list[Any]] = {
        name: [] for name in ("split", "source", "label", "clip", "crop", "view", "row_id")
    }
    places: list[np.ndarray | None] = []
    placed = _Placed(protocol, settings)
    for video in videos:
        if video["split"] == TRAIN and protocol.family != "single":
            continue
        key = video["key"]
        for clip, crop, view, run, positions in placed.of(video):
            values = (video["split"], key, labels.get(key, video["label"]), clip, crop, view)
            for name, value in zip(columns, (*values, None if run is None else row_id(key, run, view)), strict=True):
                columns[name].append(value)
            places.append(positions)
    arrays = {name: pa.array(values, VIEWS_SCHEMA.field(name).type) for name, values in columns.items()}
    arrays["protocol"] = pa.array([protocol.name] * len(places), pa.string())
    arrays["positions"] = _lists(places)
    return pa.table([arrays[name] for name in VIEWS_SCHEMA.names], schema=VIEWS_SCHEMA)


class _Placed:
    """Where the frames of a protocol's clips stand in the rows of a video."""

    def __init__(self, protocol: Protocol, settings: Mapping[str, Any]) -> None:
        self._protocol, self._stride = protocol, settings["stride"]
        self._views = protocol.views(settings["crop"])
        self._beside = {split: beside_grid(settings, split) for split in (TRAIN, "")}
        self._clips = lru_cache(maxsize=4096)(self._count)  # most videos of a set have one of a few lengths

    def of(self, video: dict[str, Any]) -> Iterator[tuple[int, int, int, int | None, np.ndarray | None]]:
        """(clip, crop, view, run, positions int32); without the last two where no row holds all of its frames."""
        split = TRAIN if video["split"] == TRAIN else ""
        clips = self._clips(video["frames_decoded"], video["rate"], tuple(video["run_lengths"]), split)
        for clip, (run, positions) in enumerate(clips):
            for crop, view in enumerate(self._views):
                yield clip, crop, view, run, positions

    def _count(
        self, decoded: int, rate: float | None, run_lengths: tuple[int, ...], split: str
    ) -> list[tuple[int, np.ndarray] | tuple[None, None]]:
        """Run and positions in it, for each clip."""
        if sum(run_lengths) * self._stride < decoded:  # no honest count; it would take memory, too
            return [(None, None)] * self._protocol.clips
        stored = stored_frames(decoded, rate, self._stride, self._beside[split])
        if sum(run_lengths) != len(stored):  # a damaged picture in a folder of them
            return [(None, None)] * self._protocol.clips
        wanted = np.searchsorted(stored, self._protocol.indices(decoded, rate))
        ends = np.cumsum(run_lengths)
        runs = np.searchsorted(ends, wanted, side="right")
        starts = ends - run_lengths
        return [
            (int(run[0]), (places - starts[run[0]]).astype(np.int32)) if (run == run[0]).all() else (None, None)
            for run, places in zip(runs, wanted, strict=True)
        ]


def _lists(places: list[np.ndarray | None]) -> pa.Array:
    lengths = [0 if one is None else len(one) for one in places]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]), pa.int32())
    known = [one for one in places if one is not None]
    values = pa.array(np.concatenate(known) if known else np.empty(0, np.int32), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array([one is None for one in places], pa.bool_()))
