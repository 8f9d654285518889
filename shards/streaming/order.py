"""In which order the entries of a part are read: epoch after epoch, each a shuffle of all of them.

    n-th entry  ->  epoch n div N, place n mod N  ->  shuffled within a group of blocks  ->  block, keyed  ->  entry

Entries (windows or images, numbered as they are stored) are taken in blocks of neighbours, blocks in a keyed order;
then entries are shuffled within groups of `GROUP_BLOCKS` blocks. Neighbours share a record batch, so that one
inflated batch serves several entries, and all batches of a group fit into the reader's cache. Groups are worked out
several at once, and a few are kept; nothing else is listed.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from toto.shards.streaming.alike import alike
from toto.shards.streaming.keyed import Permutation, key, shuffles

BLOCK_IDS = 32_768  # half a record batch: 8 windows of 4,096 ids
MOST_IN_BLOCK = 32  # images of a folder of one class stand side by side: few of them at a time
GROUP_BLOCKS = 48  # a block touches 1 1/2 batches on average: 72 of the thousands that a reader keeps
AT_ONCE = 2_048  # entries of groups that are worked out together, where a group has fewer
BLOCKS_AT_ONCE = 1_024  # whose places are worked out together: 50 take as long as 500
KNOWN_STRETCHES = 64  # 8 bytes an entry, at most AT_ONCE or 48 * 32 entries


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
        stretches, inside = np.divmod(places, self.stretch)
        found = np.empty_like(places)
        per_epoch = -(-self.entries // self.stretch)
        for which, mine in alike(epochs * per_epoch + stretches):
            found[mine] = _stretch(self, *divmod(which, per_epoch))[inside[mine]]
        return epochs, found

    @property
    def group(self) -> int:
        """Entries that are shuffled among one another; the last group of an epoch may be smaller."""
        return self.block * self.group_blocks

    @property
    def stretch(self) -> int:
        """Entries of the groups that are worked out together; the last stretch of an epoch may be smaller."""
        return self.group * max(1, AT_ONCE // self.group)


def block_of(ids_per_entry: int) -> int:
    """Entries in a block, for entries that lie `ids_per_entry` stored ids apart."""
    return max(1, min(MOST_IN_BLOCK, BLOCK_IDS // max(1, ids_per_entry)))


@lru_cache(maxsize=KNOWN_STRETCHES)
def _stretch(order: Order, epoch: int, stretch: int) -> np.ndarray:
    """int64: the entries of one stretch of an epoch, in their order.

    The numbers are turned by a keyed amount at the end, so that blocks have other limits in every epoch, and the one
    block that may be shorter, always the last, holds other entries.
    """
    base, first = key(order.seed, "order", order.part, epoch), stretch * order.stretch
    places = _places(order, base, first // order.group, min(order.stretch, order.entries - first))
    nth, inside = np.divmod(places, order.block)
    per_stretch = order.stretch // order.block
    many = max(1, BLOCKS_AT_ONCE // per_stretch)
    blocks = _blocks(order, base, stretch // many * many * per_stretch, many * per_stretch)
    turn = key(base, "turn") % order.entries
    return (blocks[stretch % many * per_stretch + nth] * order.block + inside + turn) % order.entries


@lru_cache(maxsize=KNOWN_STRETCHES)
def _blocks(order: Order, base: int, first: int, count: int) -> np.ndarray:
    """int64: which blocks stand at so many places from the first on, fewer at the end of an epoch, of key `base`."""
    whole = order.entries // order.block
    places = np.arange(first, min(first + count, -(-order.entries // order.block)))
    inside = places < whole
    places[inside] = Permutation(max(1, whole), key(base, "blocks")).many(places[inside])
    return places


def _places(order: Order, base: int, first: int, size: int) -> np.ndarray:
    """int64 [size]: 0 … size-1, shuffled within each group, from the group `first` on; the last one may be smaller."""
    groups, rest = divmod(size, order.group)
    group_keys = np.array([key(base, "group", first + i) for i in range(groups + 1)], np.uint64)
    whole = shuffles(order.group, group_keys[:groups]) + order.group * np.arange(groups)[:, None]
    if not rest:
        return whole.reshape(-1)
    return np.concatenate([whole.reshape(-1), shuffles(rest, group_keys[groups:])[0] + order.group * groups])
