"""Tables as the bytes of Parquet files, and back; the bytes may come from strangers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from toto.errors import UserError
from toto.shards.untrusted.parquet_structure import most_bytes, strings_to_measure

DICTIONARY_BYTES = 64 << 10  # larger ones are of strings that hardly repeat, and would have to be measured


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", dictionary_pagesize_limit=DICTIONARY_BYTES)
    return sink.getvalue().to_pybytes()


class TableFile:
    """A Parquet file, its claims checked; its columns can be read together or one by one.

    pa.ArrowException or OSError when it is none, or takes too much memory, or has other columns than `schema` where
    one is given. Single-threaded: with pyarrow 26, pq.read_table's threads abort the interpreter now and then when it
    exits soon after ("terminate called without an active exception", 4 of 60 runs).
    """

    def __init__(self, data: bytes, schema: pa.Schema | None = None) -> None:
        self._most, self._is_ours = most_bytes(data), schema is not None
        with _as_arrow_errors():
            measured = strings_to_measure(data)
            self._file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False, read_dictionary=measured)
            if schema is not None and _columns(self._file.schema_arrow) != _columns(schema, measured):
                raise pa.ArrowInvalid("its columns are not those that such a table has")

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns, or all."""
        with _as_arrow_errors():
            table = self._file.read(columns=columns, use_threads=False)
            table.validate(full=True)
            if self._is_ours:
                _refuse_holes(table)
            return _with_strings(table, self._most)


def read_parquet(data: bytes, columns: Sequence[str] | None = None, schema: pa.Schema | None = None) -> pa.Table:
    """A Parquet file's table; see TableFile."""
    return TableFile(data, schema).read(columns)


def read_table(
    data: bytes, name: str, columns: Sequence[str] | None = None, schema: pa.Schema | None = None
) -> pa.Table:
    """`read_parquet`, with a UserError that names the file."""
    with naming_table(name):
        return read_parquet(data, columns, schema)


@contextmanager
def naming_table(name: str) -> Iterator[None]:
    """Turns what TableFile raises into a UserError with the file's name."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(f"{name}: not a table that toto wrote ({reason})") from None


@contextmanager
def _as_arrow_errors() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError):
        raise
    except (ValueError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        raise pa.ArrowInvalid(str(error)) from None


def _columns(schema: pa.Schema, as_dictionary: Sequence[str] = ()) -> list[tuple[str, pa.DataType, bool]]:
    index = pa.int32()
    kinds = [pa.dictionary(index, f.type) if f.name in as_dictionary else f.type for f in schema]
    return [(field.name, kind, field.nullable) for field, kind in zip(schema, kinds, strict=True)]


def _refuse_holes(table: pa.Table) -> None:
    """No element of a list, key or value of a map is ever null in tables of ours."""
    for column in table.columns:
        kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_map(kind)):
            continue
        for chunk in column.chunks:
            parts = (chunk.keys, chunk.items) if pa.types.is_map(kind) else (chunk.flatten(),)
            if any(part.null_count for part in parts):
                raise pa.ArrowInvalid("a list with a null in it")


def _with_strings(table: pa.Table, most: int) -> pa.Table:
    """The table with its dictionaries put in; ArrowInvalid where their strings would take more than `most` bytes."""
    total = table.nbytes
    for i, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type):
            continue
        for chunk in table.column(i).chunks:
            lengths = pc.binary_length(chunk.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(chunk.indices)).as_py() or 0
        if total > most:
            raise pa.ArrowInvalid(f"a table that would take more than {most:,} bytes")
        table = table.set_column(i, field.with_type(field.type.value_type), table.column(i).cast(field.type.value_type))
    return table
