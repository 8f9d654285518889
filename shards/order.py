"""In which order the entries of a part are read: epoch after epoch, each a shuffle of all of them, without an array.

    n-th entry  ->  epoch n div N, place n mod N  ->  shuffled within a group of blocks  ->  block, keyed  ->  entry

Entries (windows or images, numbered as they are stored) are taken in blocks of neighbours, blocks in a keyed order;
then entries are shuffled within groups of `GROUP_BLOCKS` blocks. Neighbours share a record batch, so that one
inflated batch serves several entries, and all batches of a group fit into the reader's cache.
"""

from dataclasses import dataclass
from functools import lru_cache

from toto.shards.keyed import Permutation, key

BLOCK_IDS = 32_768  # an eighth of a record batch: 8 windows of 4,096 ids
MOST_IN_BLOCK = 32  # images of a folder of one class stand side by side: few of them at a time
GROUP_BLOCKS = 48  # a block touches 1 1/8 batches on average: 54 of the 64 that a reader keeps


@dataclass(frozen=True)
class Order:
    """The endless order of the entries 0 … entries-1 of a part."""

    entries: int
    block: int  # entries
    seed: int
    part: str

    def at(self, n: int) -> tuple[int, int]:
        """Epoch and number of the n-th entry; every entry comes once an epoch."""
        epoch, place = divmod(n, self.entries)
        return epoch, _shuffle(self, epoch)[place]


def block_of(ids_per_entry: int) -> int:
    """Entries in a block, for entries that lie `ids_per_entry` stored ids apart."""
    return max(1, min(MOST_IN_BLOCK, BLOCK_IDS // max(1, ids_per_entry)))


class _Shuffle:
    """One epoch of an order.

    The numbers are turned by a keyed amount first, so that blocks have other limits in every epoch, and the one block
    that may be shorter, always the last, holds other entries.
    """

    def __init__(self, order: Order, epoch: int) -> None:
        self._entries, self._block = order.entries, order.block
        self._base = key(order.seed, "order", order.part, epoch)
        self._turn = key(self._base, "turn") % order.entries
        self._blocks = Permutation(max(1, order.entries // order.block), key(self._base, "blocks"))
        self._group = order.block * GROUP_BLOCKS
        self._in_group = lru_cache(maxsize=4)(self._group_shuffle)

    def __getitem__(self, place: int) -> int:
        group, inside = divmod(place, self._group)
        place = group * self._group + self._in_group(group)[inside]
        block, inside = divmod(place, self._block)
        if block < self._entries // self._block:
            block = self._blocks[block]
        return (block * self._block + inside + self._turn) % self._entries

    def _group_shuffle(self, group: int) -> Permutation:
        size = min(self._group, self._entries - group * self._group)
        return Permutation(size, key(self._base, "group", group))


@lru_cache(maxsize=64)
def _shuffle(order: Order, epoch: int) -> _Shuffle:
    return _Shuffle(order, epoch)
