"""Annotations as files: tables kept beside the shards under names that hold their hash."""

import pyarrow as pa

from toto.errors import UserError
from toto.shards.commit import FileRef
from toto.shards.hashing import content_hash
from toto.shards.parquet import parquet_bytes, read_parquet
from toto.shards.seal import Annotation, file_ref
from toto.shards.store import Store


def write_annotation(store: Store, name: str, table: pa.Table) -> Annotation:
    """Writes a table under annotations/<name>-<first 8 hex of its sha256>.parquet, once."""
    data = parquet_bytes(table)
    ref = file_ref("", data)
    path = f"annotations/{name}-{ref.sha256[:8]}.parquet"
    if not store.exists(path):
        store.write(path, data)
    return Annotation(FileRef(path, ref.bytes, ref.sha256), content_hash(table))


def read_annotation(store: Store, annotation: Annotation) -> pa.Table:
    """The table of an annotation; UserError when the file is missing or damaged."""
    where = f"{store.uri}/{annotation.file.path}"
    try:
        data = store.read(annotation.file.path)
    except FileNotFoundError:
        data = b""
    if file_ref(annotation.file.path, data) != annotation.file:
        raise UserError(f"{where}: missing or damaged; put it back from a copy, the dataset id follows from it")
    return read_parquet(data)
