"""Sources as columns: a listing of tens of millions takes some 150 bytes for each, where an object takes 700.

    Source, Source, … ─ SourceTable.of ─▶ Arrow columns ─▶ iterated, indexed and sliced as Sources made anew

A URI is kept as the folder or tar that it shares with its neighbours, once for each of these, and the rest.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from toto.lazy import cached_property
from toto.tokenize.key_index import KeyIndex
from toto.tokenize.part import HEAD
from toto.tokenize.sources.source import Source

AT_ONCE = 65_536  # sources that are objects at one time
MOST_STRING_BYTES = 2**31 - 1  # of an Arrow array of strings
_WORD = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("key", pa.large_string()),
        ("kind", _WORD),
        ("split", _WORD),
        ("label", pa.int32()),
        ("size", pa.int64()),
        ("mtime_us", pa.int64()),
        ("etag", pa.large_string()),
        ("place", pa.dictionary(pa.int32(), pa.binary())),  # "<folder>/", or a tar's URI
        ("name", pa.large_binary()),  # what follows the folder; of a tar's part what stands before its URI
        ("moments", pa.large_list(pa.int32())),
    ]
)
_PLAIN = [name for name in SCHEMA.names if name not in ("place", "name", "moments")]


class SourceTable(Sequence[Source]):
    """Sources in a fixed order; equal to any sequence of the same ones."""

    def __init__(self, columns: pa.Table) -> None:
        self.columns = columns  # SCHEMA

    @classmethod
    def of(cls, sources: Iterable[Source]) -> "SourceTable":
        """A table of them; read once, so a generator's are never all in memory."""
        if isinstance(sources, SourceTable):
            return sources
        given, batches = iter(sources), []
        while part := list(islice(given, AT_ONCE)):
            batches.append(_batch(part))
        return cls(pa.Table.from_batches(batches, SCHEMA).unify_dictionaries())

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[Source]:
        for start in range(0, len(self), AT_ONCE):
            yield from _sources(self.columns.slice(start, AT_ONCE))

    @overload
    def __getitem__(self, i: int) -> Source: ...

    @overload
    def __getitem__(self, i: slice) -> "SourceTable": ...

    def __getitem__(self, i: int | slice) -> "Source | SourceTable":
        chosen = range(len(self))[i]
        if isinstance(chosen, int):
            (found,) = _sources(self.columns.slice(chosen, 1))
            return found
        if chosen.step == 1:
            return SourceTable(self.columns.slice(chosen.start, len(chosen)))
        return self.take(np.arange(chosen.start, chosen.stop, chosen.step))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SourceTable | list | tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def keys(self) -> pa.ChunkedArray:
        """large_string: the key of each."""
        return self.columns["key"]

    @cached_property
    def by_key(self) -> KeyIndex:
        """Where each key is."""
        return KeyIndex(self.keys)

    @property
    def split_names(self) -> list[str]:
        """The splits that there are, and perhaps some more."""
        return self._words("split")

    def is_word(self, name: str, word: str) -> np.ndarray:
        """bool [n]: whose kind or split this is."""
        words = self._words(name)
        return np.asarray(self._codes(name)) == (words.index(word) if word in words else -1)

    @property
    def has_moments(self) -> bool:
        """Whether some source has moments."""
        return self.columns["moments"].null_count < len(self)

    def take(self, rows: np.ndarray) -> "SourceTable":
        """These rows, in this order."""
        columns = {name: self.columns[name].take(pa.array(rows)).combine_chunks() for name in SCHEMA.names}
        return SourceTable(pa.table(columns, SCHEMA))

    def where(self, wanted: np.ndarray) -> "SourceTable":
        """Those for which `wanted` (bool) holds."""
        return self if wanted.all() else SourceTable(self.columns.filter(pa.array(wanted)))

    def with_labels(self, labels: np.ndarray | pa.Array | pa.ChunkedArray) -> "SourceTable":
        """The same sources with other labels."""
        at = SCHEMA.get_field_index("label")
        return SourceTable(self.columns.set_column(at, SCHEMA.field(at), pa.chunked_array([labels], pa.int32())))

    def with_sorted_classes(self, numbers: Mapping[str, int]) -> tuple["SourceTable", dict[int, str]]:
        """(sources, classes) whose labels are the places of their classes' names among the sorted ones.

        `numbers`: name -> the label that its sources have now.
        """
        names = sorted(numbers)
        place = np.empty(len(names), np.int32)
        place[[numbers[name] for name in names]] = range(len(names))
        return self.with_labels(pc.take(pa.array(place), self.columns["label"])), dict(enumerate(names))

    def of_splits(self, splits: Collection[str]) -> "SourceTable":
        """Those of some splits."""
        others = [split for split in self.split_names if split not in splits]
        return self.where(~np.any([self.is_word("split", split) for split in others], axis=0)) if others else self

    def first_of_each_key(self) -> "SourceTable":
        """Of neighbours with one key the first."""
        keys = self.keys
        same = pc.equal(keys.slice(1), keys.slice(0, max(0, len(self) - 1)))
        return self.where(np.append(True, ~np.asarray(same, bool))) if pc.any(same).as_py() else self

    def sort(self, splits: Sequence[str]) -> None:
        """In place: by split in the given order, then by key; those with one key and split stay as they were given.

        Column by column, so that there are never two of the whole table.
        """
        rank = {split: number for number, split in enumerate(splits)}
        ranks = pc.take(pa.array([rank[s] for s in self._words("split")], pa.int8()), self._codes("split"))
        keys = pa.table({"split": ranks, "key": self.keys})
        order = pc.sort_indices(keys, [("split", "ascending"), ("key", "ascending")])
        del keys
        for at, field in enumerate(SCHEMA):
            column = self.columns[field.name].take(order).combine_chunks()
            self.columns = self.columns.set_column(at, field, column)

    def _words(self, name: str) -> list[str]:
        chunks = self.columns[name].chunks
        return list(chunks[0].dictionary.to_pylist()) if chunks else []

    def _codes(self, name: str) -> pa.ChunkedArray:
        return pa.chunked_array([chunk.indices for chunk in self.columns[name].chunks], pa.int32())


def strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of large_string as string, whose arrays hold 2 GiB at most: more than that in pieces of their own."""
    if column.nbytes <= MOST_STRING_BYTES:
        return column.cast(pa.string())
    pieces = [chunk.slice(start, AT_ONCE) for chunk in column.chunks for start in range(0, len(chunk), AT_ONCE)]
    own = [pa.concat_arrays([piece, piece[:0]]).cast(pa.string()) for piece in pieces]  # copies: offsets begin at 0
    return pa.chunked_array(own, pa.string())


def _batch(sources: Sequence[Source]) -> pa.RecordBatch:
    columns: dict[str, Sequence[object]]
    columns = {name: [getattr(source, name) for source in sources] for name in (*_PLAIN, "moments")}
    columns["place"], columns["name"] = zip(*(_split(source.uri) for source in sources), strict=True)
    arrays = [pa.array(columns[field.name], _value_type(field.type)) for field in SCHEMA]
    return pa.RecordBatch.from_arrays(
        [array.cast(field.type) for array, field in zip(arrays, SCHEMA, strict=True)], schema=SCHEMA
    )


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _split(uri: str) -> tuple[bytes, bytes]:
    """(place, name) of a URI; odd bytes of local paths are surrogates in it."""
    head = HEAD.match(uri)
    if head:
        place, name = uri[head.end() :], head.group()
    else:
        folder, slash, name = uri.rpartition("/")
        place = folder + slash
    return place.encode("utf-8", "surrogateescape"), name.encode("utf-8", "surrogateescape")


def _uri(place: bytes, name: bytes) -> str:
    joined = place + name if place.endswith(b"/") or not place else name + place
    return joined.decode("utf-8", "surrogateescape")


def _sources(part: pa.Table) -> Iterator[Source]:
    key, kind, split, label, size, mtime_us, etag = (part[name].to_pylist() for name in _PLAIN)
    uris = map(_uri, part["place"].to_pylist(), part["name"].to_pylist())
    has_moments = part["moments"].null_count < len(part)
    own = part["moments"].to_pylist() if has_moments else [None] * len(part)
    moments = [None if frames is None else tuple(frames) for frames in own]
    return map(Source, key, uris, kind, split, label, size, mtime_us, etag, moments)
