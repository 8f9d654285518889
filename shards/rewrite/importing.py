"""import: tokens that somebody else made -> a dataset. One file or segment is one source; a bad one is quarantined.

    folder or URI ─▶ lines of the plan ─▶ units ─▶ array (checked) ─▶ rows ─▶ shard, results ─▶ commits ─▶ seal

The tokenizer that made them need not be here: training, statistics and export work without it. Pictures need a package
that offers its name as an entry point (toto.tokenizers).
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from toto.errors import UserError
from toto.plain import counted, plain
from toto.shards import ids
from toto.shards.rewrite.derive import DEFAULT, SHARD_BYTES, Options, Result, derive
from toto.shards.rewrite.foreign import KNOWN, Facts, facts_of, read_metadata, split_name, tokenizer_of
from toto.shards.rewrite.foreign_files import Files, open_files
from toto.shards.rewrite.foreign_rows import Written, quarantined, result
from toto.shards.rewrite.npy import BadFile
from toto.shards.rewrite.npy_folder import NpyFolder
from toto.shards.rewrite.pieces import with_units
from toto.shards.rewrite.plan import DerivedUnit, Draft, Identity
from toto.shards.rewrite.raw_video import RawVideo, is_raw_video, renamed
from toto.shards.rewrite.target import refuse_target
from toto.shards.schema import SOURCES_SCHEMA, RowRecord
from toto.shards.writer import ShardWriter

LINES = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("label", pa.int32()),
        pa.field("size", pa.int64(), nullable=False),  # bytes as they lie there
        pa.field("first", pa.int64(), nullable=False),  # frame in video.bin; 0 of .npy files
        pa.field("frames", pa.int64(), nullable=False),  # 0 where the file tells
        pa.field("bytes", pa.int64(), nullable=False),  # of its ids, about
    ]
)
LINES_AT_ONCE = 4_096  # as Python objects
FEW = 3


class Foreign(Protocol):
    """Somebody else's tokens. It is pickled for other processes."""

    layout: str
    ignored: int  # files that are none of its
    labelled: int  # lines that were given a label

    def lines(self) -> Iterator[dict[str, Any]]:
        """A line of the plan (columns LINES) for each source, in a fixed order."""
        ...

    def each(self, lines: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Iterator[RowRecord]]]:
        """Each line with the rows of its source; BadFile, before the first row, where it has none to give."""
        ...


def import_tokens(
    folder: str | Path,
    out: str,
    tokenizer: str,
    split: str = "train",
    given: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    options: Options = DEFAULT,
) -> Result:
    """Imports a folder, or an fsspec URI; goes on where `out` holds an unfinished import of it.

    `given` stands above metadata.json.
    UserError, UsageError where the whole cannot be read; a source that cannot is quarantined.
    """
    files = open_files(str(folder))
    raw, told = is_raw_video(files), read_metadata(files)
    values = {**(renamed(told) if raw else told), **(given or {})}
    refuse_target(out, [str(folder)])
    facts = facts_of(values, tokenizer_of(tokenizer), f"{files.uri}/metadata.json")
    split_name(split, "--split")
    foreign: Foreign = RawVideo(files, told, facts, split) if raw else NpyFolder(files, facts, split)
    settings = facts.settings(foreign.layout)
    derived = {"how": "import", "from": [], "split": split, "shard_bytes": shard_bytes, "fps": facts.fps}
    table, fingerprint = _table(foreign, facts)
    settings = {**settings, "derived": derived}
    identity = Identity(facts.name, facts.tokenizer, settings, [str(folder)], {}, fingerprint)

    def draw() -> Draft:
        for remark in _remarks({} if raw else values, facts, foreign, table):
            options.say(remark)
        if foreign.ignored:
            options.say(
                f"left out because they are no .npy, or their names no UTF-8: {counted(foreign.ignored, 'file')}"
            )
        if not len(table):
            raise UserError(f"{folder} holds neither .npy files nor a video.bin")
        units = with_units(_scaled(table, files, facts), shard_bytes, identity.of_units())
        return Draft(units, _annotations(table, facts), len(table))

    return derive(out, identity, draw, Importer(foreign, facts), None, options)


class Importer:
    """Makes units of files."""

    def __init__(self, foreign: Foreign, facts: Facts) -> None:
        self._foreign, self._facts = foreign, facts

    def make(self, unit: DerivedUnit, writer: ShardWriter, told: Callable[[int], None]) -> pa.Table:
        """Writes the rows of a unit's sources; returns their results, the quarantined ones' too."""
        results = [SOURCES_SCHEMA.empty_table()]
        for lines in unit.lines.select(LINES.names).to_batches(LINES_AT_ONCE):
            made = [self._make(line, rows, writer, told) for line, rows in self._foreign.each(lines.to_pylist())]
            results.append(pa.Table.from_pylist(made, SOURCES_SCHEMA))
        return pa.concat_tables(results)

    def _make(
        self, line: dict[str, Any], rows: Iterator[RowRecord], writer: ShardWriter, told: Callable[[int], None]
    ) -> dict[str, Any]:
        written = Written()
        told(line["bytes"])
        try:
            for row in rows:
                written.add(row)
                writer.write(row)
        except BadFile as why:
            return quarantined(line, why)
        return result(line, written, self._facts)


def _table(foreign: Foreign, facts: Facts) -> tuple[pa.Table, str]:
    """All lines, in columns; and the sha256 of the lines, of when their files changed, and of all facts."""
    lines, parts = foreign.lines(), [LINES.empty_table()]
    digest = hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode())
    while some := list(islice(lines, LINES_AT_ONCE)):
        digest.update(json.dumps(some, sort_keys=True).encode())
        parts.append(pa.Table.from_pylist(some, LINES))
    return pa.concat_tables(parts).combine_chunks(), digest.hexdigest()


def _remarks(values: Mapping[str, Any], facts: Facts, foreign: Foreign, table: pa.Table) -> Iterator[str]:
    """What was told and means nothing here."""
    unknown = sorted(values.keys() - KNOWN.keys())
    if unknown:
        yield f"metadata.json has keys that mean nothing: {', '.join(map(plain, unknown[:FEW]))}"
    if not isinstance(facts.labels, str):
        idle = sorted(facts.labels.keys() - set(table["key"].to_pylist()))
        if idle:
            yield f"labels of no file that is there: {len(idle):,} (first: {', '.join(map(plain, idle[:FEW]))})"
    elif foreign.labelled < len(table):
        yield f"files without a label in {plain(facts.labels)}: {len(table) - foreign.labelled:,}"


def _scaled(table: pa.Table, files: Files, facts: Facts) -> pa.Table:
    """Lines of .npy files with the bytes that their ids will take, by the width of the first array's numbers."""
    if table["frames"][0].as_py():
        return table
    for key in table["key"]:
        try:
            width = files.array(f"{facts.codes}/{key}".lstrip("/")).itemsize
        except BadFile:
            continue
        sizes = table["bytes"].to_numpy() * ids.id_dtype(facts.vocab_size).itemsize // width
        return table.set_column(LINES.get_field_index("bytes"), LINES.field("bytes"), pa.array(sizes))
    return table


def _annotations(table: pa.Table, facts: Facts) -> dict[str, pa.Table]:
    """`labels`, and `classes` where names are told."""
    labelled = table.filter(pc.is_valid(table["label"]))
    if not len(labelled):
        return {}
    columns = {"source": labelled["key"], "split": labelled["split"], "label": labelled["label"]}
    tables = {"labels": pa.table(columns).combine_chunks()}
    if facts.classes:
        least, most = (pc.min_max(labelled["label"])[name].as_py() for name in ("min", "max"))
        if not 0 <= least <= most < len(facts.classes):
            raise UserError(f"labels from {least} to {most}, and {counted(len(facts.classes), 'class')}")
        numbers = pa.array(range(len(facts.classes)), pa.int32())
        tables["classes"] = pa.table({"label": numbers, "name": list(facts.classes)})
    return tables
