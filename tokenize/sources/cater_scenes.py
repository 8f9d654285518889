"""CATER's scene files, scenes/CATER_new_000012.json, to where the snitch (the golden solid, shape `spl`) is.

    {"objects": [{"shape": "spl", "locations": {"0": [x, y, z], …, "300": …}}, …]}    -3 <= x, y <= 3

`cell` is the official formula of the task localize (gen_train_test.py of github.com/rohitgirdhar/CATER), which runs
over the edge at exactly 3: x = 3 is the first column of the next row, y = 3 a class beyond the last.
"""

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from toto.errors import UserError
from toto.tokenize.sources.files import File
from toto.tokenize.sources.lists import read_json

EDGE = 3  # of the table: places go from -3 to 3
HALF = 3  # cells from the middle to the edge of localize's 6×6 grid; 2 and 4 in localize_4x4 and _8x8
SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("frame", pa.int32()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("z", pa.float64()),
        ("cell", pa.int32()),  # of 6×6, inside the grid
    ]
)
_MAX_BYTES = 64 * 2**20
_READERS = 8


def cell(x: float, y: float, half: int = HALF, inside: bool = True) -> int:
    """The class of a place: row by row over (2 half)² cells. `inside` keeps places at the edge in the grid."""
    column, row = (math.floor(value * (half / EDGE)) + half for value in (x, y))
    if inside:
        column, row = (min(max(index, 0), 2 * half - 1) for index in (column, row))
    return row * 2 * half + column


def read_tracks(scenes: Sequence[File], ignored: Counter[str]) -> list[np.ndarray | None]:
    """The snitch's places in each scene, float64 [frames, 3]; None, and counted, where a file does not say."""
    with ThreadPoolExecutor(_READERS) as pool:
        tracks = list(pool.map(lambda scene: _read(scene.uri), scenes))
    if bad := sum(track is None for track in tracks):
        ignored["(scene that cannot be read)"] += bad
    return tracks


def snitch_table(tracks: dict[str, np.ndarray]) -> pa.Table:
    """Source key -> its track, to one row for each frame, as `SCHEMA`."""
    tables = [_rows(key, track) for key, track in tracks.items()]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _rows(key: str, track: np.ndarray) -> pa.Table:
    cells = [cell(x, y) for x, y, _ in track.tolist()]
    return pa.table([[key] * len(track), np.arange(len(track), dtype=np.int32), *track.T, cells], schema=SCHEMA)


def _read(uri: str) -> np.ndarray | None:
    try:
        return _track(read_json(uri, _MAX_BYTES))
    except (UserError, KeyError, TypeError, ValueError, StopIteration):
        return None


def _track(scene: Any) -> np.ndarray:
    places = next(solid for solid in scene["objects"] if solid["shape"] == "spl")["locations"]
    track = np.array([places[str(frame)] for frame in range(len(places))], np.float64)
    if track.ndim != 2 or track.shape[1] != 3 or not len(track) or not np.isfinite(track).all():
        raise ValueError("no track")
    return track
