"""How well a code's neighbour tells it: the entropy of a code given the one left of it, above it, or a frame before.

    codes [F, h, w] ─(context, code) of three relations─▶ tables [chosen contexts, vocabulary] ─▶ bits

A table of all pairs would have vocabulary² counters. So contexts are chosen before counting: all of them up to 1,448
codes, else 256 or more (fewer above 32,768 codes), of which half are the most frequent ones of the first record batch,
and half a keyed draw of the others. Of a chosen context every pair is counted. The others' share is known exactly,
since every context is counted, and their entropy is taken to be that of the drawn ones; the standard error of that is
stated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toto.shards.streaming.keyed import Permutation, key

RELATIONS = ("left", "above", "previous_frame")
TABLE_CELLS = 1 << 21  # counters of a table: 16 MiB each, which caches still help with
CONTEXTS, MOST_CELLS = 256, 1 << 23  # so many contexts in any case, unless the table has more counters
WAITING_PAIRS = 1 << 23


@dataclass(frozen=True)
class Contexts:
    """The contexts whose pairs are counted; the same in every process."""

    vocab_size: int
    frequent: np.ndarray  # codes, chosen because they are frequent (all codes where all fit)
    drawn: np.ndarray  # codes, drawn from the others

    @staticmethod
    def choose(first: np.ndarray, seed: int = 0) -> "Contexts":
        """`first`: int64 [V], how often each code occurs in some early part of the data."""
        vocab_size = len(first)
        room = max(2, TABLE_CELLS // vocab_size, min(CONTEXTS, MOST_CELLS // vocab_size))
        if room >= vocab_size:
            return Contexts(vocab_size, np.arange(vocab_size), np.empty(0, np.int64))
        by_count = np.argsort(-first, kind="stable")
        others = np.sort(by_count[room // 2 :])
        places = Permutation(len(others), key(seed, "contexts")).many(np.arange(room - room // 2))
        return Contexts(vocab_size, np.sort(by_count[: room // 2]), np.sort(others[places]))

    @property
    def chosen(self) -> np.ndarray:
        """Both kinds: row i of a table belongs to the i-th."""
        return np.concatenate([self.frequent, self.drawn])


class ContextCounts:
    """Pairs of one relation."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._chosen = np.zeros(contexts.vocab_size, bool)
        self._chosen[contexts.chosen] = True
        self._row = np.zeros(contexts.vocab_size, np.uint32)
        self._row[contexts.chosen] = np.arange(len(contexts.chosen))
        self.table = np.zeros((len(contexts.chosen), contexts.vocab_size), np.int64)
        self.of_context = np.zeros(contexts.vocab_size, np.int64)
        self._waiting: list[np.ndarray] = []  # places in the table, uint32 or uint64

    def add(self, context: np.ndarray, code: np.ndarray) -> None:
        """Two arrays of codes of one shape; pair by pair."""
        context, code = context.reshape(-1).astype(np.intp), code.reshape(-1)
        self.of_context += np.bincount(context, minlength=self._contexts.vocab_size)
        if len(self._contexts.drawn):
            kept = np.flatnonzero(self._chosen.take(context))
            context, code = context[kept], code[kept]
        self._waiting.append(self._row[context] * np.uint32(self._contexts.vocab_size) + code)
        if sum(map(len, self._waiting)) >= WAITING_PAIRS:
            self.finish()

    def finish(self) -> None:
        """Counts the pairs that wait: going through the table costs as much for one pair as for a million."""
        if self._waiting:
            places = np.concatenate(self._waiting)
            self.table += np.bincount(places, minlength=self.table.size).reshape(self.table.shape)
            self._waiting.clear()

    def merge(self, other: "ContextCounts") -> None:
        """Counts in what another finished one of the same contexts counted."""
        self.table += other.table
        self.of_context += other.of_context

    def facts(self) -> dict[str, Any]:
        """`bits` (null without pairs), its standard error, and what they stand on."""
        pairs, weights = int(self.of_context.sum()), self.table.sum(axis=1)
        if not pairs:
            return {"bits": None, "standard_error": None, "pairs": 0, "pairs_counted": 0, "contexts": 0}
        entropies = np.array([entropy_bits(row) for row in self.table])
        n_frequent = len(self._contexts.frequent)
        sure = float((weights * entropies)[:n_frequent].sum())
        rest, drawn_weights, drawn = (
            pairs - int(weights[:n_frequent].sum()),
            weights[n_frequent:],
            entropies[n_frequent:],
        )
        mean = float((drawn_weights * drawn).sum() / drawn_weights.sum()) if drawn_weights.sum() else 0.0
        spread = 0.0
        if drawn_weights.sum():
            unseen = 1 - len(drawn) / (self._contexts.vocab_size - n_frequent)
            spread = float(np.sqrt(((drawn_weights * (drawn - mean)) ** 2).sum() * unseen) / drawn_weights.sum())
        return {
            "bits": (sure + rest * mean) / pairs,
            "standard_error": spread * rest / pairs,
            "pairs": pairs,
            "pairs_counted": int(weights.sum()),
            "contexts": int((weights > 0).sum()),
        }


def entropy_bits(counts: np.ndarray) -> float:
    """Shannon's, of observed counts; 0 where there are none."""
    seen = counts[counts > 0]
    return bits_of_sums(seen.sum(), (seen * np.log2(seen)).sum()) if len(seen) else 0.0


def bits_of_sums(total: float, logs: float) -> float:
    """The same by the sums of count and of count · log2(count); never below zero, as rounding would have it."""
    return max(0.0, float(np.log2(total) - logs / total))


def pairs_of(codes: np.ndarray, goes_on: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Relation -> (contexts, codes), from codes [F, h, w]; `goes_on` bool [F]: the frame before is the video's last."""
    return {
        "left": (codes[:, :, :-1], codes[:, :, 1:]),
        "above": (codes[:, :-1], codes[:, 1:]),
        "previous_frame": (codes[:-1][goes_on[1:]], codes[1:][goes_on[1:]]),
    }
