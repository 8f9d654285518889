"""One shard file -> its record batches, each checked against its own hash before anybody sees it.

footer ─▶ Structure (structure.py) ─▶ batch i: its bytes ─▶ lengths checked ─▶ Arrow inflates ─▶ hash of its values
"""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa

from toto.errors import UserError
from toto.shards.batch import Batch
from toto.shards.hashing import ContentHasher, content_hash
from toto.shards.schema import FORMAT_VERSION, other_version, row_schema
from toto.shards.shard_file import LocalFile, ShardFile
from toto.shards.untrusted.row_rules import Rules
from toto.shards.untrusted.structure import Structure
from toto.shards.writer import BATCH_HASH_KEY


class DamagedShard(UserError):
    """A shard is not what its writer wrote."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}; run `toto-shards verify --deep` on the dataset to see all damage")
        self._arguments = name, what

    def __reduce__(self) -> tuple[Any, ...]:
        """For a worker process, which sends it to its parent."""
        return DamagedShard, self._arguments


class MissingShard(DamagedShard):
    """A file of a dataset is not there, however often it was asked for."""


class ShardReader:
    """Batches of one shard, of a local path or of a ShardFile; several threads may read. Close it, or use it as a
    context manager; one that is dropped closes itself."""

    def __init__(self, file: Path | ShardFile, name: str) -> None:
        self.name = name
        if isinstance(file, Path):
            try:
                file = LocalFile(file)
            except FileNotFoundError:
                raise DamagedShard(name, "the file is missing, or not a regular file") from None
        self._file = file
        self._recent = _Recent()
        try:
            self._structure = Structure(self._read, file.size)
            self.metadata: dict[str, Any] = self._structure.metadata
            _refuse_other_version(self.metadata, name)
            self._rules = Rules.of(self._structure.metadata)
        except ValueError as error:
            file.close()
            raise DamagedShard(name, f"not a readable shard ({_first_line(error)})") from None
        self.schema = row_schema(self._structure.token_dtype, self.metadata)
        self.batches = self._structure.batches
        self._schema_message = self.schema.remove_metadata().serialize().to_pybytes()

    def batch(self, i: int, also: ContentHasher | None = None) -> pa.RecordBatch:
        """The i-th batch, inflated and checked; DamagedShard when its values are not the written ones. Its rows are
        added to the hasher `also`, which costs less than hashing them again."""
        block = self._structure.block(i)
        try:
            self._recent.data, self._recent.start = self._file.read(block.offset, block.size), block.offset
            self._structure.check_batch(i)
            batch, metadata = self._inflated(self._recent.data)
            batch.validate(full=True)
            actual = content_hash(batch, also)
        except (pa.ArrowException, ValueError, MemoryError, OverflowError, StopIteration) as error:
            raise DamagedShard(self.name, f"batch {i} does not read back ({_first_line(error)})") from None
        finally:
            self._recent.data = b""
        if dict(metadata or {}).get(BATCH_HASH_KEY) != actual.encode():
            raise DamagedShard(self.name, f"batch {i} holds other values than were written")
        fault = next(self._rules.misshapen(Batch(batch)), None)
        if fault is not None:
            raise DamagedShard(self.name, fault)
        return batch

    def close(self) -> None:
        """Gives the file back; batches already read stay valid."""
        self._file.close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, start: int, length: int) -> bytes:
        """Bytes of the batch that this thread is at, or else of the file."""
        inside = start - self._recent.start
        if 0 <= inside <= len(self._recent.data) - length:
            return self._recent.data[inside : inside + length]
        return self._file.read(start, length)

    def _inflated(self, message: bytes) -> tuple[pa.RecordBatch, Any]:
        """A batch from its bytes: in a stream, the schema comes before it."""
        options = pa.ipc.IpcReadOptions(use_threads=False)
        stream = pa.ipc.open_stream(pa.py_buffer(self._schema_message + message), options=options)
        try:
            return stream.read_next_batch_with_custom_metadata()
        except OSError as error:  # what zstd says of damage; the disk was read before
            raise ValueError(_first_line(error)) from None


def _refuse_other_version(metadata: dict[str, Any], name: str) -> None:
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{name}: {other_version(version)}")


class _Recent(threading.local):
    """The batch that a thread reads now, so that looking at its parts fetches nothing again."""

    start = 0
    data = b""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
