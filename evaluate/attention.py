"""Attention heads: one for each layer, trained at once on frozen token features, batch by batch.

Every epoch visits the windows in an order that depends on the seed and the epoch alone. The features of a batch come
from memory or from the backbone (features.TokenFeatures); heads of all layers share them.
"""

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from toto.evaluate.features import Features, TokenFeatures
from toto.evaluate.pooling import AttentionPooling
from toto.evaluate.settings import AttentionRecipe

Heads = dict[int, AttentionPooling]  # by layer


def fit_attention(
    tokens: TokenFeatures,
    windows: np.ndarray,
    labels: np.ndarray,
    shape: tuple[int, int],
    recipe: AttentionRecipe,
    seed: int,
) -> Heads:
    """Heads trained on these windows; `labels` has one for every window of `tokens`; `shape` is (attention heads,
    classes)."""
    heads = {layer: _new(tokens, layer, shape, recipe, seed) for layer in tokens.sums}
    groups = [list(head.parameters()) for head in heads.values()]
    steps = recipe.epochs * math.ceil(len(windows) / recipe.batch)
    optimiser = torch.optim.AdamW(sum(groups, []), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for numbers, features in _epochs(tokens, windows, recipe, seed):
        loss = _loss(heads, features, torch.from_numpy(labels[numbers]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return heads


@torch.no_grad()
def attention_log_probabilities(heads: Heads, features: Features) -> dict[int, np.ndarray]:
    """Layer -> float32 [B, C]; features are rounded as in training."""
    return {
        layer: head(features[layer].to(torch.bfloat16).float()).log_softmax(-1).cpu().numpy()
        for layer, head in heads.items()
    }


def _loss(heads: Heads, features: Features, labels: Tensor) -> Tensor:
    """The sum over layers: they share no parameter, so each head is trained as if alone."""
    losses = []
    for layer, head in heads.items():
        logits = head(features[layer].float())
        losses.append(torch.nn.functional.cross_entropy(logits, labels.to(logits.device)))
    return torch.stack(losses).sum()


def _epochs(
    tokens: TokenFeatures, windows: np.ndarray, recipe: AttentionRecipe, seed: int
) -> Iterator[tuple[np.ndarray, Features]]:
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(windows)
        yield from tokens.batches(order, recipe.batch, partial(_draw, rng, recipe.positions))


def _draw(rng: np.random.Generator, share: float, count: int) -> np.ndarray:
    return np.sort(rng.choice(count, max(1, round(share * count)), replace=False))


def _new(
    tokens: TokenFeatures, layer: int, shape: tuple[int, int], recipe: AttentionRecipe, seed: int
) -> AttentionPooling:
    mean, variance = tokens.statistics(layer)
    head = AttentionPooling(len(mean), *shape, recipe.query_std, torch.Generator().manual_seed(seed))
    head.mean.copy_(mean)
    head.variance.copy_(variance)
    return head.to(mean.device)
