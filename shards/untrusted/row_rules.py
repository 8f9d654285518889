"""What must hold for every row of a shard, whoever wrote it; readers hold each batch against it, `verify --deep` all.

Rules over whole columns, in NumPy: a batch of ids takes about 0.05 ms. Only where one is broken are rows
looked at one by one, to name them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.plain import counted
from toto.shards import ids
from toto.shards.batch import Batch
from toto.shards.schema import row_ids

MOST_NAMED = 20  # rows of a batch that are named, of those that break one rule


@dataclass(frozen=True)
class Rules:
    """What the constant facts of a shard say about its rows."""

    vocab_size: int
    pixel_side: int | None  # the shorter side of pixels; None where rows have none
    square: bool  # whether both sides are the same

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Rules":
        """From a shard's metadata, or from a dataset.json; ValueError where they are of a wrong type."""
        try:
            vocab, settings = facts["tokenizer"]["vocab_size"], facts["settings"]
            side, crop = settings.get("keep_pixels"), settings.get("crop")
        except (KeyError, TypeError, AttributeError):
            raise ValueError("no tokenizer or settings that toto writes") from None
        if not isinstance(vocab, int) or not 0 <= vocab < 1 << 31 or not (side is None or isinstance(side, int)):
            raise ValueError("a vocabulary or pixels of no size that toto writes")
        return cls(vocab, side or None, crop != "full")

    def faults(self, batch: Batch) -> Iterator[str]:
        """Every broken rule, with the row that breaks it."""
        yield from self.misshapen(batch)
        yield from self.wrong_ids(batch)

    def misshapen(self, batch: Batch) -> Iterator[str]:
        """The rules on which whoever takes rows apart relies: all but the range of ids."""
        frames, images = batch.n_frames, batch.kind == ids.KIND_IMAGE
        yield from _named(batch, ~_has_its_ids(batch), "another number of ids than its frames and grid need")
        odd = ~(images | (batch.kind == ids.KIND_VIDEO)) | (frames < 1) | (images & (frames > 1))
        yield from _named(batch, odd, "neither a video nor an image")
        yield from _named(batch, ~_own_ids(batch), "row_id does not follow from source, run and view")
        for name in ("frame_index", "pts_list_us"):
            column = batch.arrow.column(name)
            if column.null_count < batch.rows:
                found = _given(pc.list_value_length(column).cast(pa.int64()), frames)
                yield from _named(batch, found != frames, f"another number of values in {name} than frames")
        yield from _named(batch, self._odd_pixels(batch), "pixels of another size than the settings say")

    def wrong_ids(self, batch: Batch) -> Iterator[str]:
        """Start, codes, end, of the rows that have as many ids as they need, so two at least."""
        whole = _has_its_ids(batch)
        if not whole.any():
            return
        first, last = batch.starts[:-1][whole], batch.starts[1:][whole] - 1
        tokens, highest = batch.tokens, self.vocab_size + ids.CODE_OFFSET
        framed = (tokens[first] == batch.kind[whole]) & (tokens[last] == ids.END)
        yield from _named(batch, _at(whole, ~framed), "start or end id is wrong")
        inside = tokens[batch.starts[0] : batch.starts[-1]]
        special = np.count_nonzero(inside < ids.CODE_OFFSET)
        if not whole.all() or special != 2 * batch.rows or int(inside.max(initial=0)) >= highest:
            codes = [tokens[a + 1 : b] for a, b in zip(first, last, strict=True)]
            outside = [bool(len(c)) and not ids.CODE_OFFSET <= c.min() <= c.max() < highest for c in codes]
            yield from _named(batch, _at(whole, np.array(outside)), f"ids outside {ids.CODE_OFFSET}…{highest - 1}")

    def _odd_pixels(self, batch: Batch) -> np.ndarray:
        """Bool [rows]: pixels that are not n_frames pictures with the shorter side that the settings name."""
        column = batch.arrow.column("pixels")
        if column.null_count == batch.rows:
            return np.zeros(batch.rows, bool)
        if self.pixel_side is None:
            return column.is_valid().to_numpy(zero_copy_only=False)
        line = 3 * np.maximum(batch.n_frames.astype(np.int64), 1) * self.pixel_side
        sizes = _given(pc.binary_length(column), line * self.pixel_side)
        odd = (sizes % line != 0) | (sizes < line * self.pixel_side)
        return odd | (sizes != line * self.pixel_side) if self.square else odd


def _named(batch: Batch, broken: np.ndarray, what: str) -> Iterator[str]:
    places = broken.nonzero()[0]
    for i in places[:MOST_NAMED].tolist():
        yield f"{batch.value('source', i)} run {batch.run[i]}: {what}"
    if len(places) > MOST_NAMED:
        yield f"{counted(len(places) - MOST_NAMED, 'more row')}: {what}"


def _at(places: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Bool [rows]: the values where `places` is set, False elsewhere."""
    spread = np.zeros(len(places), bool)
    spread[places] = values
    return spread


def _given(column: pa.Array, otherwise: np.ndarray) -> np.ndarray:
    """int64 [rows]: the column's values, those of `otherwise` where it has none."""
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    return np.where(valid, pc.fill_null(column, 0).to_numpy(), otherwise)


def _has_its_ids(batch: Batch) -> np.ndarray:
    """Bool [rows]: whether the row has as many ids as its frames and its grid need."""
    cells = batch.grid_h.astype(np.int64) * batch.grid_w
    return np.diff(batch.starts) == 2 + batch.n_frames * cells


def _own_ids(batch: Batch) -> np.ndarray:
    """Bool [rows]: whether the row id follows from source, run and view."""
    sources, column = batch.arrow.column("source"), batch.arrow.column("row_id")
    ends = np.frombuffer(sources.buffers()[1], np.int32, batch.rows + 1, 4 * sources.offset).tolist()
    keys = (sources.buffers()[2] or pa.py_buffer(b"")).to_pybytes()
    expected = row_ids([keys[start:end] for start, end in pairwise(ends)], batch.run, batch.view)
    found = np.frombuffer(column.buffers()[1], "V16", batch.rows, 16 * column.offset)
    return found == np.frombuffer(expected, "V16")
