"""One verified record batch as NumPy arrays: no Python object a row until somebody asks for one.

    record batch ─▶ tokens (all rows behind one another), starts, run, view, n_frames …  ─▶ record(i), only when asked

The arrays are read-only views into the batch's memory, or into the mapped file that it lies in.
"""

from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa

from toto.lazy import cached_property
from toto.shards.ids import CODE_OFFSET
from toto.shards.schema import RowRecord

NO_END = (1 << 63) - 1

_NAMES = tuple(field.name for field in fields(RowRecord))


class Batch:
    """Row i has the ids tokens[starts[i] : starts[i + 1]]; every other column is an array with a value a row."""

    def __init__(self, arrow: pa.RecordBatch) -> None:
        self.arrow = arrow
        self.rows: int = arrow.num_rows
        tokens = arrow.column("tokens")
        self.tokens: np.ndarray = tokens.values.to_numpy()  # uint16 or uint32, of all rows
        self.starts: np.ndarray = tokens.offsets.to_numpy()  # int64 [rows + 1]

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """Codes from top to bottom and from left to right; None where not all rows have the same."""
        both = self.grid_h[0], self.grid_w[0]
        alike = (self.grid_h == both[0]).all() and (self.grid_w == both[1]).all()
        return (int(both[0]), int(both[1])) if alike else None

    @cached_property
    def ids_end(self) -> int:
        """One more than the highest id, where each row's first and last id are special and all others are codes; else
        NO_END: nothing is known of them."""
        framing = np.concatenate([self.starts[:-1], self.starts[1:] - 1])
        first, last = self.starts[[0, -1]]
        special = first + np.flatnonzero(self.tokens[first:last] < CODE_OFFSET)
        return int(self.tokens[first:last].max()) + 1 if np.array_equal(np.sort(framing), special) else NO_END

    @cached_property
    def run(self) -> np.ndarray:
        """uint32 [rows]."""
        return self._numbers("run")

    @cached_property
    def view(self) -> np.ndarray:
        """uint8 [rows]."""
        return self._numbers("view")

    @cached_property
    def kind(self) -> np.ndarray:
        """uint8 [rows]: 1 video, 3 image."""
        return self._numbers("kind")

    @cached_property
    def n_frames(self) -> np.ndarray:
        """uint16 [rows]."""
        return self._numbers("n_frames")

    @cached_property
    def grid_h(self) -> np.ndarray:
        """uint16 [rows]: codes from top to bottom."""
        return self._numbers("grid_h")

    @cached_property
    def grid_w(self) -> np.ndarray:
        """uint16 [rows]: codes from left to right."""
        return self._numbers("grid_w")

    def __reduce__(self) -> tuple[Any, ...]:
        """Carries the rows of this batch alone, not the memory that it is a part of."""
        with pa.BufferOutputStream() as sink, pa.ipc.new_stream(sink, self.arrow.schema) as writer:
            writer.write_batch(self.arrow)
        return _from_stream, (sink.getvalue().to_pybytes(),)

    @cached_property
    def sources(self) -> list[str]:
        """The source's key of each row."""
        return self.arrow.column("source").to_pylist()

    @property
    def nbytes(self) -> int:
        """Bytes of the ids and the pixels, and about those of the other columns; Arrow's own sum takes 40 µs."""
        pixels = self.arrow.column("pixels").buffers()[2]
        return self.tokens.nbytes + (0 if pixels is None else pixels.size) + 128 * self.rows

    def slice(self, i: int) -> "Batch":
        """Row i alone, in the same memory."""
        return Batch(self.arrow.slice(i, 1))

    def value(self, name: str, i: int) -> Any:
        """One column's value in row i, as `RowRecord` has it; KeyError for an unknown column."""
        if name == "tokens":
            return self.tokens[self.starts[i] : self.starts[i + 1]]
        column = self.arrow.column(name)[i]
        if name == "crop":
            return tuple(column.as_py())
        if name in ("frame_index", "pts_list_us"):
            return column.values.to_numpy() if column.is_valid else None
        return column.as_py()

    def pixels(self, i: int) -> np.ndarray | None:
        """uint8, flat: the pixels of row i without a copy; None where the dataset keeps none."""
        data = self.arrow.column("pixels")[i].as_buffer()
        return None if data is None else np.frombuffer(data, np.uint8)

    def record(self, i: int) -> RowRecord:
        """Row i with all its columns."""
        return RowRecord(**{name: self.value(name, i) for name in _NAMES})

    def _numbers(self, name: str) -> np.ndarray:
        return self.arrow.column(name).to_numpy()


def _from_stream(data: bytes) -> Batch:
    return Batch(pa.ipc.open_stream(data).read_next_batch())
