"""In which order the entries of a part are read: epoch after epoch, each a shuffle of all of them.

    n-th entry  ->  epoch n div N, place n mod N  ->  shuffled within a group of blocks  ->  block, keyed  ->  entry

Entries (windows or images, numbered as they are stored) are taken in blocks of neighbours, blocks in a keyed order;
then entries are shuffled within groups of `GROUP_BLOCKS` blocks. Neighbours share a record batch, so that one
inflated batch serves several entries, and all batches of a group fit into the reader's cache. A group is worked out at
once, and a few are kept; nothing else is listed.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from toto.shards.streaming.alike import alike
from toto.shards.streaming.keyed import Permutation, key

BLOCK_IDS = 32_768  # half a record batch: 8 windows of 4,096 ids
MOST_IN_BLOCK = 32  # images of a folder of one class stand side by side: few of them at a time
GROUP_BLOCKS = 48  # a block touches 1 1/2 batches on average: 72 of the thousands that a reader keeps
KNOWN_GROUPS = 64  # 8 bytes an entry, at most 48 * 32 entries a group


@dataclass(frozen=True)
class Order:
    """The endless order of the entries 0 … entries-1 of a part."""

    entries: int
    block: int  # entries
    seed: int
    part: str
    group_blocks: int = GROUP_BLOCKS

    def at(self, n: int) -> tuple[int, int]:
        """Epoch and number of the n-th entry; every entry comes once an epoch."""
        epochs, entries = self.many(np.array([n]))
        return int(epochs[0]), int(entries[0])

    def many(self, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [k] -> int64 [k] each: epochs and numbers of the n-th entries, quickest where n are neighbours."""
        epochs, places = np.divmod(n, self.entries)
        groups, inside = np.divmod(places, self.group)
        found = np.empty_like(places)
        per_epoch = -(-self.entries // self.group)
        for which, mine in alike(epochs * per_epoch + groups):
            found[mine] = _group(self, *divmod(which, per_epoch))[inside[mine]]
        return epochs, found

    @property
    def group(self) -> int:
        """Entries that are shuffled among one another; the last group of an epoch may be smaller."""
        return self.block * self.group_blocks


def block_of(ids_per_entry: int) -> int:
    """Entries in a block, for entries that lie `ids_per_entry` stored ids apart."""
    return max(1, min(MOST_IN_BLOCK, BLOCK_IDS // max(1, ids_per_entry)))


@lru_cache(maxsize=KNOWN_GROUPS)
def _group(order: Order, epoch: int, group: int) -> np.ndarray:
    """int64: the entries of one group of an epoch, in their order.

    The numbers are turned by a keyed amount at the end, so that blocks have other limits in every epoch, and the one
    block that may be shorter, always the last, holds other entries.
    """
    base = key(order.seed, "order", order.part, epoch)
    first, whole_blocks = group * order.group, order.entries // order.block
    size = min(order.group, order.entries - first)
    places = Permutation(size, key(base, "group", group)).many(np.arange(size))
    blocks = group * order.group_blocks + np.arange(-(-size // order.block))
    whole = blocks < whole_blocks
    blocks[whole] = Permutation(max(1, whole_blocks), key(base, "blocks")).many(blocks[whole])
    nth, inside = np.divmod(places, order.block)
    turn = key(base, "turn") % order.entries
    return (blocks[nth] * order.block + inside + turn) % order.entries
