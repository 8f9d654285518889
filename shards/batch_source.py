"""Where the batches of a dataset come from: the nearest place that has them.

    kept by this process ─▶ the cache on this disk (cache.py) ─▶ the shard: opened once, a batch read, verified
    all of them, in order: from the shards, past the cache; of a remote dataset some are fetched ahead

What a process keeps is bounded for all its datasets together. Two that read the same shard through one cache, the same
dataset opened twice, find what the other one has.
"""

import hashlib
import itertools
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import TypeVar

from toto.lazy import cached_property
from toto.shards.batch import Batch
from toto.shards.cache.background import BACKGROUND, ahead
from toto.shards.cache.batches import Cache, open_cache, shard_key
from toto.shards.cache.kept import Kept
from toto.shards.cache.mapped import MappedFile
from toto.shards.reader import DamagedShard, MissingShard, ShardReader
from toto.shards.sealed_files import look_again
from toto.shards.shard_file import open_shard_file
from toto.shards.store import LocalStore, Store
from toto.shards.unit_table import UnitTable

T = TypeVar("T")
KEPT_BATCHES, KEPT_BYTES = 4_096, 512 << 20  # of each process, mapped or in memory: 128 KiB a batch of tokens
KEPT_SHARDS = 128  # open ones of each process
KNOWN_KEYS = 4_096  # shards whose names in the cache are kept
AHEAD_BATCHES, AHEAD_BYTES = 64, 128 << 20  # that may be on their way in the background: 8 at a time are being read
FOUND_FILES = 1_024  # of the cache that are mapped before they are asked for: several times what a reader announces
SEQUENTIAL_AHEAD = 8  # batches that are read ahead of who reads all of a remote dataset

BATCHES: Kept[Batch] = Kept(KEPT_BATCHES, KEPT_BYTES, lambda batch: batch.nbytes)
SHARDS: Kept[ShardReader] = Kept(KEPT_SHARDS)
_sources = itertools.count()


class BatchSource:
    """The batches of the shards of `units`; `cache_bytes` as `Dataset` takes it."""

    def __init__(self, store: Store, units: UnitTable, tokenizer_id: str, cache_bytes: int | None) -> None:
        self._store, self._units, self._tokenizer_id, self._cache_bytes = store, units, tokenizer_id, cache_bytes
        local = isinstance(store, LocalStore)
        self._place = os.path.realpath(store.uri) if local else store.uri  # the same from any working directory
        self._found: OrderedDict[tuple[int, int], MappedFile] = OrderedDict()  # in the cache, not asked for yet
        self._number = next(_sources)  # in this process: what is kept for this object is kept under it
        self._key = lru_cache(maxsize=KNOWN_KEYS)(self._key_of)
        self._kept_as = lru_cache(maxsize=KNOWN_KEYS)(self._kept_key_of)

    def get(self, shard: int, batch: int) -> Batch:
        """One batch; UserError where it cannot be had, IndexError where there is none."""
        key = (self._kept_as(shard), batch)
        found = BATCHES.find(key)
        return BATCHES.get(key, partial(self._bring, shard, batch)) if found is None else found

    def begin(self, wanted: Iterable[tuple[int, int]]) -> bool:
        """Has these brought in the background; False where more than may be on their way were left out. Failures are
        told who asks. What the cache has is mapped: the system is told to have it in memory by then."""
        most = min(AHEAD_BATCHES, 1 + AHEAD_BYTES // self._units.batch_bytes)
        for shard, batch in wanted:
            key = (self._kept_as(shard), batch)
            if (shard, batch) in self._found or BATCHES.has(key) or self._map_cached(shard, batch):
                continue
            if BATCHES.coming >= most:
                return False
            BATCHES.begin(key, partial(self._bring, shard, batch), BACKGROUND.submit)
        return True

    def every(self, shards: Iterable[int]) -> Iterator[tuple[int, int, Batch]]:
        """(shard, number, batch) of all batches of these shards, in order."""
        places = ((shard, i) for shard in shards for i in range(len(self._units.batch_ends(shard))))
        if isinstance(self._store, LocalStore):
            return itertools.starmap(self._placed, places)
        return ahead((partial(self._placed, shard, i) for shard, i in places), SEQUENTIAL_AHEAD)

    def once(self, shard: int, batch: int) -> Batch:
        """One batch from its shard, past what is kept and the cache: for who reads each batch once, in any order."""
        return self._placed(shard, batch)[2]

    def name(self, shard: int) -> str:
        """The shard's place, for errors."""
        return f"{self._store.uri}/{self._units.value('path', shard)}"

    @cached_property
    def _cache(self) -> Cache:
        return open_cache(self._cache_bytes)

    def _map_cached(self, shard: int, batch: int) -> bool:
        """Maps a batch for who asks for it; False where the cache does not have it."""
        found = self._cache.find(self._key(shard), batch) if 0 <= shard < self._units.count else None
        if found is not None:
            self._found[shard, batch] = found
            if len(self._found) > FOUND_FILES:
                with suppress(KeyError):  # another thread took the last one just now
                    self._found.popitem(last=False)
        return found is not None

    def _bring(self, shard: int, batch: int) -> Batch:
        """A batch from the cache, or from its shard into the cache."""
        key = self._key(shard)
        stored = self._cache.get(key, batch, self._found.pop((shard, batch), None))
        if stored is None:
            stored = self._cache.put(key, batch, self._read(shard, batch))
        return self._fitting(stored, shard, batch)

    def _key_of(self, shard: int) -> str:
        return shard_key(self._place, self._units.value("sha256", shard), self._tokenizer_id)

    def _kept_key_of(self, shard: int) -> Hashable:
        """Under which this process keeps the batches of a shard: what decides their values, and the rows that they are
        held against; without a cache this object's own."""
        if self._cache.is_off or not 0 <= shard < self._units.count:
            return self._number, shard
        named = f"{self._cache.name} {self._key(shard)}".encode(errors="surrogateescape")
        return hashlib.sha256(named + self._units.batch_ends(shard).tobytes()).digest()

    def _placed(self, shard: int, batch: int) -> tuple[int, int, Batch]:
        return shard, batch, self._fitting(self._read(shard, batch), shard, batch)

    def _read(self, shard: int, batch: int) -> Batch:
        """A batch from its shard, verified."""
        reader = SHARDS.get((self._number, shard), partial(self._undamaged, partial(self._open, shard)))
        if not 0 <= batch < reader.batches:
            raise IndexError(f"batch {batch} of {reader.name}, which has {reader.batches}")
        read = partial(look_again, self._store, partial(reader.batch, batch), reader.name)
        return Batch(self._undamaged(read))

    def _undamaged(self, read: Callable[[], T]) -> T:
        """What `read` gives; from a remote store a second time where it is damaged, as it may be on its way."""
        try:
            return read()
        except DamagedShard as error:
            if isinstance(self._store, LocalStore) or isinstance(error, MissingShard):
                raise
            return read()

    def _fitting(self, found: Batch, shard: int, batch: int) -> Batch:
        if found.rows != self._units.rows_of_batch(shard, batch):
            raise DamagedShard(self.name(shard), f"batch {batch} has another number of rows than the manifest says")
        return found

    def _open(self, shard: int) -> ShardReader:
        path, nbytes = (self._units.value(name, shard) for name in ("path", "bytes"))
        name = self.name(shard)
        reader = ShardReader(look_again(self._store, partial(open_shard_file, self._store, path, nbytes), name), name)
        if reader.batches != len(self._units.batch_ends(shard)):
            raise DamagedShard(name, "another number of batches than the manifest says")
        tokenizer = reader.metadata.get("tokenizer")
        if not isinstance(tokenizer, dict) or tokenizer.get("id") != self._tokenizer_id:
            raise DamagedShard(name, "made with another tokenizer than the dataset says")
        if reader.metadata.get("unit") != PurePosixPath(path).name.partition("-")[0]:
            raise DamagedShard(name, "holds the rows of another unit")
        return reader
