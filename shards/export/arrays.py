"""One flat file a split, to be mapped into memory: `<split>.npy` for NumPy, or `<split>.bin` as nanoGPT reads it.

Windows are an array [pieces, ...]; rows, which differ in length, stand one behind the other. `<split>.pieces.parquet`
has a line for each piece: where it begins and ends in the flat array, and its provenance.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from toto.errors import UsageError
from toto.shards.export.layout import Layout, OneShape
from toto.shards.export.outgoing import Outgoing
from toto.shards.export.provenance import FIELDS

LINES = 65_536  # of the table in memory at a time
TABLE = pa.schema(
    [pa.field("begin", pa.int64(), nullable=False), pa.field("end", pa.int64(), nullable=False)]
    + [pa.field(name, kind, nullable=nullable) for name, kind, nullable in FIELDS]
)


class FlatFile:
    """Writes the pieces of one split into one raw file, little-endian, and their table."""

    suffix = "bin"

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None:
        if shard_bytes is not None:
            raise UsageError(f"--shard-bytes: an export to {type(self).suffix} has one file a split")
        self._out, self._paths = out, [out.folder / f"{split}.{name}" for name in (self.suffix, "pieces.parquet")]
        self._file = open(self._paths[0], "wb")
        self._table = pq.ParquetWriter(self._paths[1], TABLE, compression="zstd")
        self._layout, self._shape = layout, OneShape()
        self._numbers = self._count = 0
        self._lines: list[dict[str, Any]] = []

    @classmethod
    def names(cls, split: str) -> str:
        """A regular expression of the files that a split has."""
        return rf"{split}\.({cls.suffix}|pieces\.parquet)"

    def write(self, array: np.ndarray, facts: dict[str, Any]) -> None:
        """Adds one piece."""
        if self._layout.frames is not None:
            self._shape.check(array, facts)
        self._file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        self._lines.append({"begin": self._numbers, "end": self._numbers + array.size, **facts})
        self._numbers += array.size
        self._count += 1
        if len(self._lines) == LINES:
            self._flush()

    def close(self) -> None:
        """Ends the file and its table."""
        self._flush()
        self._table.close()
        self._file.close()
        for path in self._paths:
            self._out.finished(path)

    def _flush(self) -> None:
        self._table.write_table(pa.Table.from_pylist(self._lines, TABLE))
        self._lines.clear()


class NpyFile(FlatFile):
    """The same with the header of a .npy file, which is written last: only then are the pieces counted."""

    suffix = "npy"

    def __init__(self, out: Outgoing, split: str, layout: Layout, shard_bytes: int | None) -> None:
        super().__init__(out, split, layout, shard_bytes)
        self._header()

    def close(self) -> None:
        """Ends the file with its header, and its table."""
        begins = self._file.tell()
        self._file.seek(0)
        self._header()
        assert self._file.tell() <= begins
        super().close()

    def _header(self) -> None:
        pieces = self._layout.frames is not None and self._shape.shape is not None
        shape = (self._count, *(self._shape.shape or ())) if pieces else (self._numbers,)
        descr = np.lib.format.dtype_to_descr(self._layout.dtype.newbyteorder("<"))
        header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
        assert len(header) < 117
        self._file.write(b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n")
