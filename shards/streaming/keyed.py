"""Randomness that has a name: numbers and permutations that follow from a seed and what they are for.

    key(seed, "phase", epoch, run)  ->  one 64-bit number, the same on every machine and for ever
    keys(seed, "phase", epoch, runs)  ->  the same for many runs at once
    Permutation(n, key)[i]          ->  where i goes, without an array of n numbers

What a training run reads in which order hangs on these; tests pin their values.
"""

import numpy as np
import xxhash

MASK = (1 << 64) - 1
ROUNDS = 4  # of the Feistel network; each changes both halves of the bits
MOST = 1 << 48

_GOLDEN, _LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(31)
_STEPS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def key(seed: int, *parts: int | str) -> int:
    """A 64-bit number for a seed and what it is to be used for: xxh3-64 of the parts, each with its type and length."""
    return xxhash.xxh3_64_intdigest(b"".join(map(_spelled, (seed, *parts))))


def keys(*parts: int | str | np.ndarray) -> np.ndarray:
    """uint64 [k]: `key` of each line, where at least one part is an integer array [k] and the others stand in all."""
    count = max(len(part) for part in parts if isinstance(part, np.ndarray))
    text = np.concatenate([_column(part, count) for part in parts], axis=1)
    width, data = text.shape[1], memoryview(text.tobytes())
    starts = range(0, width * count, width)
    return np.fromiter((xxhash.xxh3_64_intdigest(data[i : i + width]) for i in starts), np.uint64, count)


class Permutation:
    """A keyed bijection of 0 … n-1, n up to 2^48, in closed form: a Feistel network over the next power of two.

    What falls outside is sent through again, less than once on average ("cycle walking"), which keeps it a bijection.
    """

    def __init__(self, n: int, key: int) -> None:
        if not 1 <= n <= MOST:
            raise ValueError(f"a permutation of {n} numbers; 1 to {MOST} are possible")
        self.n = n
        self._bits = bits = (n - 1).bit_length()
        self._low = np.uint64(bits - bits // 2)  # bits of the lower half; the upper one may have one bit less
        self._halves = np.uint64((1 << bits - bits // 2) - 1), np.uint64((1 << bits // 2) - 1)
        self._keys = _mixed(np.arange(2 * ROUNDS, dtype=np.uint64) + np.uint64(key & MASK))

    def __getitem__(self, i: int) -> int:
        """Where i goes; IndexError outside 0 … n-1."""
        return int(self.many(np.array([i]))[0])

    def many(self, i: np.ndarray) -> np.ndarray:
        """int64 [k] -> int64 [k]: where each goes."""
        if len(i) and not (0 <= int(i.min()) and int(i.max()) < self.n):
            raise IndexError(f"{i.min()} … {i.max()} of a permutation of {self.n}")
        size, sent = 1 << self._bits, None
        if size <= 2 * len(i):  # all at once, so that those that fall outside need only be looked up
            sent = self._once(np.arange(size, dtype=np.uint64))
        found = i.astype(np.uint64)
        outside: np.ndarray | slice = slice(None)
        while len(found[outside]):
            found[outside] = self._once(found[outside]) if sent is None else sent[found[outside]]
            outside = np.flatnonzero(found >= self.n)
        return found.astype(np.int64)

    def _once(self, i: np.ndarray) -> np.ndarray:
        """One pass through the network: a bijection of 0 … 2^bits - 1."""
        low_mask, high_mask = self._halves
        low, high = i & low_mask, i >> self._low
        for first, second in self._keys.reshape(ROUNDS, 2):
            high ^= _mixed(low ^ first) & high_mask
            low ^= _mixed(high ^ second) & low_mask
        return high << self._low | low


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer, uint64 [k], in place: every bit of the input reaches every bit of the output."""
    x += _GOLDEN
    for shift, factor in _STEPS:
        x ^= x >> shift
        x *= factor
    x ^= x >> _LAST
    return x


def _column(part: int | str | np.ndarray, count: int) -> np.ndarray:
    """uint8 [count, bytes]: the part of every line, spelled."""
    if not isinstance(part, np.ndarray):
        spelled = np.frombuffer(_spelled(part), np.uint8)
        return np.broadcast_to(spelled, (count, len(spelled)))
    lines = np.full((count, 9), ord("i"), np.uint8)
    lines[:, 1:] = part.astype(f"<{part.dtype.kind}8").view(np.uint8).reshape(count, 8)
    return lines


def _spelled(part: int | str) -> bytes:
    if isinstance(part, str):
        text = part.encode()
        return b"s" + len(text).to_bytes(8, "little") + text
    return b"i" + (part & MASK).to_bytes(8, "little")
