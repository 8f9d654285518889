"""What must hold for every row of a shard, whoever wrote it; `verify --deep` reads each one."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from toto.shards import ids
from toto.shards.hashing import ContentHasher
from toto.shards.reader import ShardReader
from toto.shards.schema import RowRecord, batch_to_rows, row_id

ROW_ID_PAIR = np.dtype([("high", "<u8"), ("low", "<u8")])


@dataclass
class Rows:
    """What reading a whole shard found."""

    content_hash: str = ""
    lengths: list[tuple[str, int]] = field(default_factory=list)  # (source, frames) of each row, in order
    row_ids: list[np.ndarray] = field(default_factory=list)  # ROW_ID_PAIR, an array a batch
    faults: list[str] = field(default_factory=list)


def read_rows(reader: ShardReader, vocab_size: int) -> Rows:
    """Reads every row and holds it against the rules; DamagedShard where a batch does not read back."""
    found, hasher = Rows(), ContentHasher(reader.schema)
    for i in range(reader.batches):
        batch = reader.batch(i)
        hasher.update(batch)
        rows = batch_to_rows(batch)
        found.lengths += [(row.source, row.n_frames) for row in rows]
        found.row_ids.append(np.frombuffer(b"".join(row.row_id for row in rows), ROW_ID_PAIR))
        for row in rows:
            found.faults += [f"{row.source} run {row.run}: {what}" for what in _faults(row, vocab_size)]
    found.content_hash = hasher.hexdigest()
    return found


def told_lengths(results: pa.Table) -> list[tuple[str, int]]:
    """(source, frames) of each row of a shard, in order, as its per-source results tell it."""
    told: list[tuple[str, int]] = []
    columns = (results[name].to_pylist() for name in ("key", "kind", "run_lengths", "rows"))
    for key, kind, runs, rows in zip(*columns, strict=True):
        told += [(key, 1)] * rows if kind == "image" else [(key, n) for n in runs for _ in range(rows // len(runs))]
    return told


def _faults(row: RowRecord, vocab_size: int) -> Iterator[str]:
    if row.row_id != row_id(row.source, row.run, row.view):
        yield "row_id does not follow from source, run and view"
    tokens, highest = row.tokens, vocab_size + ids.CODE_OFFSET
    if len(tokens) != 2 + row.n_frames * row.grid_h * row.grid_w:
        yield f"{len(tokens)} ids for {row.n_frames} frames of {row.grid_h}×{row.grid_w}"
    elif row.kind not in (ids.KIND_VIDEO, ids.KIND_IMAGE) or tokens[0] != row.kind or tokens[-1] != ids.END:
        yield "start or end id is wrong"
    elif len(tokens) > 2 and not (ids.CODE_OFFSET <= tokens[1:-1].min() and tokens[1:-1].max() < highest):
        yield f"ids outside {ids.CODE_OFFSET}…{highest - 1}"
    for name in ("frame_index", "pts_list_us"):
        values = getattr(row, name)
        if values is not None and len(values) != row.n_frames:
            yield f"{len(values)} values in {name} for {row.n_frames} frames"
    if row.pixels is not None and len(row.pixels) % (3 * row.n_frames):
        yield f"{len(row.pixels)} bytes of pixels for {row.n_frames} frames"
