"""What a model has to beat: the frequencies of codes, and "the same code as in the frame before".

    unigram   p(c), counted on training sequences, one added to every count
    copy      λ·[c = code of this cell in the previous frame] + (1 − λ)·p(c); frame 0 by unigram

λ is the one of highest likelihood on the training sequences. In nats a token, like a model's loss.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Baselines:
    """Both, fitted."""

    log_unigram: np.ndarray  # float64 [codes]
    copy_share: float  # λ

    def unigram(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [frames, cells] of a sequence -> float64 losses of the same shape."""
        return np.asarray(-self.log_unigram[codes])

    def copy(self, codes: np.ndarray) -> np.ndarray:
        """Codes int [frames, cells] of a sequence -> float64 losses of the same shape."""
        losses = self.unigram(codes)
        same = codes[1:] == codes[:-1]
        p = np.exp(self.log_unigram[codes[1:]])
        losses[1:] = -np.log(self.copy_share * same + (1 - self.copy_share) * p)
        return losses


def fit(sequences: Iterable[np.ndarray], vocab_size: int) -> Baselines:
    """Fits both on training sequences, codes int [frames, cells] each; ValueError when there is none."""
    counts = np.ones(vocab_size)
    same, changed = np.zeros(vocab_size), 0
    seen = 0
    for codes in sequences:
        counts += np.bincount(codes.reshape(-1), minlength=vocab_size)
        stays = codes[1:] == codes[:-1]
        same += np.bincount(codes[1:][stays], minlength=vocab_size)
        changed += int((~stays).sum())
        seen += 1
    if not seen:
        raise ValueError("no training sequences to count codes in")
    p = counts / counts.sum()
    return Baselines(np.log(p), _best_share(p, same, changed))


def _best_share(p: np.ndarray, same: np.ndarray, changed: int) -> float:
    """The λ where the log-likelihood, which is concave in it, is highest; never quite 0 or 1."""
    low, high = 1e-6, 1 - 1e-6
    for _ in range(60):
        share = (low + high) / 2
        slope = (same * (1 - p) / (share + (1 - share) * p)).sum() - changed / (1 - share)
        low, high = (share, high) if slope > 0 else (low, share)
    return (low + high) / 2
