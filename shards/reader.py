"""One shard file -> its record batches, each checked against its own hash before anybody sees it."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from toto.errors import UserError
from toto.shards.hashing import content_hash
from toto.shards.schema import shard_metadata
from toto.shards.writer import BATCH_HASH_KEY


class DamagedShard(UserError):
    """A shard is not what its writer wrote."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"{name}: {what}; run `toto-shards verify --deep` on the dataset to see all damage")


class ShardReader:
    """Batches of one shard, mapped into memory; close it, or use it as a context manager."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        if not path.is_file():
            raise DamagedShard(name, "the shard is missing, or not a regular file")
        self._map = pa.memory_map(str(path))
        try:
            self._reader = pa.ipc.open_file(self._map, options=pa.ipc.IpcReadOptions(use_threads=False))
            self.metadata: dict[str, Any] = shard_metadata(self._reader.schema)
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            self._map.close()
            raise DamagedShard(name, f"not a readable shard ({_first_line(error)})") from None
        self.schema = self._reader.schema
        self.batches: int = self._reader.num_record_batches

    def batch(self, i: int) -> pa.RecordBatch:
        """The i-th batch, inflated and checked; DamagedShard when its values are not the written ones."""
        try:
            batch, metadata = self._reader.get_batch_with_custom_metadata(i)
            batch.validate(full=True)
            actual = content_hash(batch)
        except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
            raise DamagedShard(self.name, f"batch {i} does not read back ({_first_line(error)})") from None
        if dict(metadata or {}).get(BATCH_HASH_KEY) != actual.encode():
            raise DamagedShard(self.name, f"batch {i} holds other values than were written")
        return batch

    def close(self) -> None:
        """Gives the mapping back; batches already read stay valid."""
        self._map.close()

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]
