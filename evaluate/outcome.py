"""What a probe finds: scores of every test source under every head, in memory."""

from dataclasses import dataclass

import numpy as np

from toto.evaluate.settings import ProbeSettings

Head = tuple[int, str]  # (layer, pooling)


@dataclass(frozen=True)
class HeadResult:
    """One layer and pooling."""

    layer: int
    pooling: str
    penalty: float | None  # None: an attention head
    held_out_top1: float
    held_out_loss: float  # nats a source
    scores: np.ndarray  # float32 [S, C]: mean of softmax over the windows of each test source


@dataclass(frozen=True)
class Outcome:
    """All that a probe found. Numbers of classes are positions in `classes`, the dataset's labels in order."""

    settings: ProbeSettings
    classes: list[int]
    sources: list[str]  # of the test split
    labels: np.ndarray  # int64 [S]
    heads: list[HeadResult]
    chosen: Head  # highest accuracy on the held-out sources; the one-frame control does not stand for election
    majority: int  # the most frequent class of the training split
    counts: dict[str, int]  # sources and windows

    def head(self, layer: int, pooling: str) -> HeadResult:
        """The result of one layer and pooling."""
        return next(head for head in self.heads if (head.layer, head.pooling) == (layer, pooling))


def source_scores(log_probabilities: np.ndarray, owner: np.ndarray, sources: int) -> np.ndarray:
    """[V, C] of windows -> float32 [S, C]: the mean of softmax over the windows of each source."""
    total = np.zeros((sources, log_probabilities.shape[1]), np.float64)
    np.add.at(total, owner, np.exp(log_probabilities.astype(np.float64)))
    return (total / np.bincount(owner, minlength=sources)[:, None]).astype(np.float32)


def true_ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [S]: how many classes score higher than the true one; of equals the first class wins."""
    true = scores[np.arange(len(labels)), labels][:, None]
    before = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > true) | ((scores == true) & before)).sum(1)
