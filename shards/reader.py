"""One shard file -> its record batches, each checked against its own hash before anybody sees it.

footer ─▶ Structure (structure.py) ─▶ batch i: its bytes ─▶ lengths checked ─▶ inflated ─▶ hash of its values ─▶ rules
"""

from pathlib import Path
from typing import Any

import pyarrow as pa

from toto.errors import UserError
from toto.shards.batch import Batch
from toto.shards.hashing import Columns, ContentHasher, batch_hash
from toto.shards.inflate import Inflate
from toto.shards.schema import FORMAT_VERSION, other_version, row_schema
from toto.shards.shard_file import LocalFile, ShardFile
from toto.shards.untrusted.row_rules import Rules
from toto.shards.untrusted.structure import Structure


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
        try:
            self._structure = Structure(file.read, file.size)
            self.metadata: dict[str, Any] = self._structure.metadata
            _refuse_other_version(self.metadata, name)
            self._rules = Rules.of(self._structure.metadata)
        except ValueError as error:
            file.close()
            raise DamagedShard(name, f"not a readable shard ({_first_line(error)})") from None
        self.schema = row_schema(self._structure.token_dtype, self.metadata)
        self.batches = self._structure.batches
        self._inflate, self._columns = Inflate(self.schema), Columns(self.schema)

    def batch(self, i: int, also: ContentHasher | None = None) -> pa.RecordBatch:
        """The i-th batch, inflated and checked; DamagedShard when its values are not the written ones. Its rows are
        added to the hasher `also`, which costs less than hashing them again."""
        block = self._structure.block(i)
        try:
            data = self._file.read(block.offset, block.size)
            message = self._structure.check_batch(i, data)
            batch = self._inflate(message, data)
            batch.validate(full=True)
            actual = batch_hash(self._columns, batch, also)
        except (pa.ArrowException, ValueError, MemoryError, OverflowError) as error:
            raise DamagedShard(self.name, f"batch {i} does not read back ({_first_line(error)})") from None
        if message.xxh3 != actual.encode():
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


def _refuse_other_version(metadata: dict[str, Any], name: str) -> None:
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{name}: {other_version(version)}")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
