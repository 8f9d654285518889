"""Randomness that has a name: numbers and permutations that follow from a seed and what they are for.

    key(seed, "phase", epoch, run)  ->  one 64-bit number, the same on every machine and for ever
    keys(seed, "phase", epoch, runs)  ->  the same for many runs at once
    Permutation(n, key)[i]          ->  where i goes, without an array of n numbers
    shuffles(n, keys)  ->  where all of 0 … n-1 go, under many keys at once

What a training run reads in which order hangs on these; tests pin their values.
"""

import numpy as np
import xxhash

MASK = (1 << 64) - 1
ROUNDS = 4  # of the Feistel network; each changes both halves of the bits
MOST = 1 << 48


def _of_64_bits(number: int) -> np.ndarray:
    """uint64, an array without axes: NumPy takes 0.3 µs less for it than for a scalar of its own."""
    return np.array(number, np.uint64)


_GOLDEN, _LAST = _of_64_bits(0x9E3779B97F4A7C15), _of_64_bits(31)
_STEPS = (
    (_of_64_bits(30), _of_64_bits(0xBF58476D1CE4E5B9)),
    (_of_64_bits(27), _of_64_bits(0x94D049BB133111EB)),
)


def key(seed: int, *parts: int | str) -> int:
    """A 64-bit number for a seed and what it is to be used for: xxh3-64 of the parts, each with its type and length."""
    return xxhash.xxh3_64_intdigest(b"".join(map(_spelled, (seed, *parts))))


def keys(*parts: int | str | np.ndarray) -> np.ndarray:
    """uint64 [k]: `key` of each line, where at least one part is an integer array [k] and the others stand in all."""
    count = max(len(part) for part in parts if isinstance(part, np.ndarray))
    text = np.concatenate([_column(part, count) for part in parts], axis=1)
    lines = text.view(f"V{text.shape[1]}")[:, 0].tolist()
    return np.fromiter(map(xxhash.xxh3_64_intdigest, lines), np.uint64, count)


class Permutation:
    """A keyed bijection of 0 … n-1, n up to 2^48, in closed form: a Feistel network over the next power of two.

    What falls outside is sent through again, less than once on average ("cycle walking"), which keeps it a bijection.
    """

    def __init__(self, n: int, key: int) -> None:
        if not 1 <= n <= MOST:
            raise ValueError(f"a permutation of {n} numbers; 1 to {MOST} are possible")
        self.n, self._key = n, _of_64_bits(key & MASK)

    def __getitem__(self, i: int) -> int:
        """Where i goes; IndexError outside 0 … n-1."""
        return int(self.many(np.array([i]))[0])

    def many(self, i: np.ndarray) -> np.ndarray:
        """int64 [k] -> int64 [k]: where each goes."""
        if len(i) and not (0 <= int(i.min()) and int(i.max()) < self.n):
            raise IndexError(f"{i.min()} … {i.max()} of a permutation of {self.n}")
        bits = (self.n - 1).bit_length()
        if 1 << bits <= 2 * len(i):
            return shuffles(self.n, self._key[None])[0, i]
        found = i.astype(np.uint64)
        outside: np.ndarray | slice = slice(None)
        while len(found[outside]):
            found[outside] = _sent(found[outside], bits, self._key)
            outside = np.flatnonzero(found >= self.n)
        return found.astype(np.int64)


def shuffles(n: int, keys: np.ndarray) -> np.ndarray:
    """int64 [keys, n]: the permutation of 0 … n-1, n ≤ 2^20 or so, that `Permutation` has under each uint64 key. All of
    the next power of two are sent through at once, so that those that fall outside need only be looked up."""
    bits = (n - 1).bit_length()
    sent = _sent(np.arange(1 << bits, dtype=np.uint64), bits, keys[:, None]).astype(np.int64)
    found = sent[:, :n].copy()
    while len(outside := np.flatnonzero(found >= n)):
        found.flat[outside] = sent[outside // n, found.flat[outside]]
    return found


def _sent(i: np.ndarray, bits: int, key: np.ndarray) -> np.ndarray:
    """uint64 [k]: one pass through the network, a bijection of 0 … 2^bits - 1; [m, k] for keys [m, 1]."""
    shift = _of_64_bits(bits - bits // 2)  # bits of the lower half; the upper one may have one bit less
    low_mask, high_mask = _of_64_bits((1 << bits - bits // 2) - 1), _of_64_bits((1 << bits // 2) - 1)
    low, high = i & low_mask, i >> shift
    for first, second in _round_keys(key):
        high = high ^ _mixed(low ^ first) & high_mask
        low = low ^ _mixed(high ^ second) & low_mask
    return high << shift | low


def _round_keys(key: np.ndarray) -> np.ndarray:
    """uint64 [ROUNDS, 2, …]: what each half-round of the network mixes in."""
    numbers = np.arange(2 * ROUNDS, dtype=np.uint64).reshape(ROUNDS, 2, *np.ones(np.ndim(key), int))
    return _mixed(numbers + key)


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
