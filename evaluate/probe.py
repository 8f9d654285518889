"""The probe (paper §3.5, §4.1, §4.2): heads on frozen features of every layer, each layer and pooling compared.

    training split ─▶ views ─▶ one pass ─▶ per-frame means of every layer (cached), token features
      4/5 of the sources: heads fitted       1/5: penalty, layer and pooling chosen
    linear heads fitted again on all of them; attention heads, which cost a pass an epoch, kept
    test split ─▶ views ─▶ one pass ─▶ mean of softmax over a source's windows ─▶ top-1, top-5: touched once

The paper chooses its layer on the test set; we do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from toto.errors import UserError
from toto.evaluate.attention import Heads, attention_log_probabilities, fit_attention
from toto.evaluate.features import Backbone, Pass, Pooled, TokenFeatures, cache_key, read_cached, write_cached
from toto.evaluate.heads import LinearHeads, fit_linear
from toto.evaluate.outcome import Head, HeadResult, Outcome, source_scores, true_ranks
from toto.evaluate.settings import ONE_FRAME, POOLINGS, ProbeSettings
from toto.evaluate.views import Views, held_out, stored_stride, views_of
from toto.plain import counted
from toto.shards.dataset import Dataset


@dataclass(frozen=True)
class Subject:
    """What is probed, and where it runs."""

    backbone: Backbone
    layers: int  # the last layer's number: features after that many blocks
    used_ids: int  # ids from this on are unknown to it
    heads: int  # of an attention head of the probe: as many as the model's attention has
    weights: str  # an id of its weights: names them in the cache
    device: str = "cpu"


def probe(
    subject: Subject,
    dataset: Dataset,
    settings: ProbeSettings,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    memory: int = 4 << 30,
) -> Outcome:
    """Probes a backbone on a labelled token dataset; pooled features are read from and written to `cache`.

    Deterministic on one CPU and number of threads. `memory` bounds the token features held (bytes).
    """
    layers = list(range(subject.layers + 1)) if settings.layers is None else list(settings.layers)
    train, test, classes = _splits(dataset, settings)
    run = Pass(subject.backbone, layers, subject.used_ids, subject.device)
    inside = held_out(train, settings.held_out, settings.seed)
    if not inside.any():
        raise UserError(
            f"{dataset.store.uri}: split {settings.train_split} has one source of each class; none can be held out for "
            "choosing a layer, so a probe needs two of at least one class"
        )
    say(
        f"{counted(len(train.sources), 'training source')} ({inside.sum():,} of them held out), "
        f"{counted(len(test.sources), 'test source')}, {counted(len(train) + len(test), 'window')}, "
        f"{counted(len(classes), 'class')}, layers {_span(layers)}"
    )
    poolings = _poolings(settings)
    tokens = TokenFeatures(train, run, memory) if "attention" in poolings else None
    pooled = _means(subject, train, layers, "frames" in poolings, cache, run, tokens)
    say("training windows seen; fitting heads")
    linear = {
        (layer, pooling): _fit(pooled.matrix(layer, pooling), train, inside, len(classes), settings, subject.device)
        for layer in layers
        for pooling in poolings
        if pooling != "attention"
    }
    attention = _Attention(tokens, inside, (subject.heads, len(classes)), settings) if tokens else None
    del pooled
    say("heads fitted; the test split is read once")
    test_means = _means(subject, test, layers, "frames" in poolings, cache, run, None, attention)
    heads = [_linear_result(head, fitted, test_means, subject.device) for head, fitted in linear.items()]
    if attention:
        heads += attention.results(test)
    heads.sort(key=lambda head: (head.layer, (*POOLINGS, ONE_FRAME).index(head.pooling)))
    best = max((h for h in heads if h.pooling != ONE_FRAME), key=lambda h: (h.held_out_top1, -h.held_out_loss))
    return Outcome(
        settings,
        classes,
        test.sources,
        test.labels,
        heads,
        (best.layer, best.pooling),
        int(np.bincount(train.labels).argmax()),
        {
            "fitted": int((~inside).sum()),
            "held_out": int(inside.sum()),
            "test": len(test.sources),
            "train_windows": len(train),
            "test_windows": len(test),
            "train_short": train.short,
            "test_short": test.short,
        },
    )


def _splits(dataset: Dataset, settings: ProbeSettings) -> tuple[Views, Views, list[int]]:
    """Training and test windows, with labels counted from 0 in the order of the dataset's."""
    try:
        labels = {source: label for source, label in dataset.labels(settings.labels).items() if label is not None}
    except KeyError as error:
        raise UserError(str(error.args[0])) from None
    stride = stored_stride(dataset, settings.stride)
    train, test = (
        views_of(Dataset(dataset.store.uri, dataset.dataset_id, split), labels, settings.frames, stride, settings.views)
        for split in (settings.train_split, settings.test_split)
    )
    classes = sorted({*train.labels.tolist(), *test.labels.tolist()})
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"{dataset.store.uri}: split {settings.train_split} has one class only; a probe needs two")
    train, test = (replace(views, labels=np.searchsorted(classes, views.labels)) for views in (train, test))
    return train, test, classes


def _poolings(settings: ProbeSettings) -> list[str]:
    """Those asked for; of one frame all means are the same. The control costs nothing: a causal model's features of
    the first frame know no other."""
    if settings.frames == 1:
        return ["average", *(["attention"] if "attention" in settings.poolings else [])]
    return [*settings.poolings, ONE_FRAME]


def _means(
    subject: Subject,
    views: Views,
    layers: Sequence[int],
    by_frame: bool,
    cache: Path | None,
    run: Pass,
    tokens: TokenFeatures | None = None,
    attention: "_Attention | None" = None,
) -> Pooled:
    """The means of every window: from the cache where nothing else needs the pass."""
    pooled = Pooled(views, layers, by_frame)
    key = cache_key(subject.weights, views, layers, by_frame)
    found = read_cached(cache, key)
    if found is not None:
        pooled.values = found
    if found is None or tokens or attention:
        for numbers, features in run.over(views):
            if found is None:
                pooled.add(numbers, features)
            if tokens:
                tokens.add(numbers, features)
            if attention:
                attention.score(numbers, features)
        if found is None and pooled.values is not None:
            write_cached(cache, key, pooled.values)
    return pooled


@dataclass(frozen=True)
class _Fitted:
    heads: LinearHeads  # one penalty, fitted on all training sources
    penalty: float
    top1: float
    loss: float


def _fit(
    x: np.ndarray, views: Views, inside: np.ndarray, classes: int, settings: ProbeSettings, device: str
) -> _Fitted:
    """Chooses the penalty on the held-out sources, then fits on all."""
    y = torch.from_numpy(views.labels[views.owner]).to(device)
    features = torch.from_numpy(np.array(x)).to(device)
    fit, choose = (torch.from_numpy(views.of(mask)).to(device) for mask in (~inside, inside))
    heads = fit_linear(features[fit], y[fit], classes, settings.penalties)
    found = heads.log_probabilities(features[choose]).cpu().numpy()
    judged = [_judge(found[:, i], views, inside) for i in range(len(settings.penalties))]
    best = max(range(len(judged)), key=lambda i: (judged[i][0], -judged[i][1]))
    penalty = settings.penalties[best]
    return _Fitted(fit_linear(features, y, classes, (penalty,)), penalty, *judged[best])


def _judge(log_probabilities: np.ndarray, views: Views, mask: np.ndarray) -> tuple[float, float]:
    """(top-1, mean loss) of the sources of a mask, from their windows in the order of `views.of(mask)`."""
    numbers = np.cumsum(mask) - 1
    scores = source_scores(log_probabilities, numbers[views.owner[views.of(mask)]], int(mask.sum()))
    labels = views.labels[mask]
    loss = -np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-12)).mean()
    return float((true_ranks(scores, labels) == 0).mean()), float(loss)


def _linear_result(head: Head, fitted: _Fitted, means: Pooled, device: str) -> HeadResult:
    x = torch.from_numpy(np.array(means.matrix(*head))).to(device)
    found = fitted.heads.log_probabilities(x)[:, 0].cpu().numpy()
    views = means.views
    scores = source_scores(found, views.owner, len(views.sources))
    return HeadResult(*head, fitted.penalty, fitted.top1, fitted.loss, scores)


class _Attention:
    """Attention heads of every layer: trained, judged on the held-out sources, then scoring what a pass yields."""

    def __init__(
        self, tokens: TokenFeatures, inside: np.ndarray, shape: tuple[int, int], settings: ProbeSettings
    ) -> None:
        views = tokens.views
        labels = views.labels[views.owner]
        self.heads: Heads = fit_attention(tokens, views.of(~inside), labels, shape, settings.attention, settings.seed)
        self.judged = self._judge(tokens, inside, settings.attention.batch)
        self.found: dict[int, list[np.ndarray]] = {layer: [] for layer in self.heads}
        tokens.kept = None

    def score(self, numbers: np.ndarray, features: dict[int, torch.Tensor]) -> None:
        """Takes what a pass over the test windows yields, in their order."""
        for layer, values in attention_log_probabilities(self.heads, features).items():
            self.found[layer].append(values)

    def results(self, test: Views) -> list[HeadResult]:
        """What was scored."""
        return [
            HeadResult(
                layer,
                "attention",
                None,
                *self.judged[layer],
                source_scores(np.concatenate(found), test.owner, len(test.sources)),
            )
            for layer, found in self.found.items()
        ]

    def _judge(self, tokens: TokenFeatures, inside: np.ndarray, size: int) -> dict[int, tuple[float, float]]:
        found: dict[int, list[np.ndarray]] = {layer: [] for layer in self.heads}
        for _, features in tokens.batches(tokens.views.of(inside), size):
            for layer, values in attention_log_probabilities(self.heads, features).items():
                found[layer].append(values)
        return {layer: _judge(np.concatenate(values), tokens.views, inside) for layer, values in found.items()}


def _span(layers: Sequence[int]) -> str:
    return f"{layers[0]} to {layers[-1]}" if len(layers) > 2 else ", ".join(map(str, layers))
