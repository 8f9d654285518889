"""Linear heads on pooled features: multinomial logistic regression, all penalties at once, to the optimum.

    X [n, F] -> every channel to mean 0, variance 1 (BatchNorm1d without affine) -> rotated to its principal axes
      -> accelerated steps with the inverse of Böhning's bound on the Hessian, 1/2 X'X + l2: diagonal in those axes

No learning rate, no epochs, no random numbers: the same features give the same head.
Legend: n windows, F features, r = min(n, F) axes, P penalties, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from toto.evaluate.pooling import EPS

MOST_STEPS = 300
TOLERANCE = 1e-6  # nats that one more step could gain, by the bound


@dataclass(frozen=True)
class LinearHeads:
    """One head for each penalty."""

    mean: Tensor  # [F]
    scale: Tensor  # [F]
    weight: Tensor  # [F, P, C]
    bias: Tensor  # [P, C]

    def log_probabilities(self, x: Tensor) -> Tensor:
        """[n, F] -> [n, P, C]."""
        features, penalties, classes = self.weight.shape
        normal = (x - self.mean) * self.scale
        logits = normal @ self.weight.reshape(features, -1)
        return (logits.reshape(-1, penalties, classes) + self.bias).log_softmax(-1)


def fit_linear(x: Tensor, y: Tensor, classes: int, penalties: tuple[float, ...]) -> LinearHeads:
    """Heads for float32 features [n, F] and labels int64 [n], one for each penalty; full batch, on x's device."""
    mean = x.mean(0)
    scale = torch.rsqrt(x.var(0, unbiased=False) + EPS)
    normal = (x - mean) * scale
    axes, curvature = _principal_axes(normal)
    rotated = normal @ axes  # [n, r]
    del normal
    weight, bias = _minimise(rotated, y, classes, curvature, torch.tensor(penalties, device=x.device))
    back = (axes @ weight.flatten(1)).reshape(-1, *weight.shape[1:])
    return LinearHeads(mean, scale, back, bias)


def _minimise(z: Tensor, y: Tensor, classes: int, curvature: Tensor, l2: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [r, P, C] and biases [P, C] by Nesterov's steps, each problem with its own restarts."""
    count, axes, problems = len(z), z.shape[1], len(l2)
    target = torch.nn.functional.one_hot(y, classes).to(z.dtype)[:, None]  # [n, 1, C]
    step = 1 / (0.5 * curvature[:, None] + l2)[:, :, None]  # [r, P, 1]
    at = z.new_zeros(axes + 1, problems, classes)  # the last row is the bias: its bound is 1/2, it has no penalty
    step = torch.cat([step, torch.full_like(step[:1], 2.0)])
    penalty = torch.cat([l2.expand(axes, -1), torch.zeros_like(l2[None])])[:, :, None]
    ahead, age = at, z.new_ones(problems)
    for _ in range(MOST_STEPS):
        logits = (z @ ahead[:-1].flatten(1)).reshape(count, problems, classes) + ahead[-1]
        residual = logits.softmax(-1).sub_(target).flatten(1) / count
        gradient = torch.cat([z.T @ residual, residual.sum(0, keepdim=True)]).reshape(at.shape) + penalty * ahead
        move = gradient * step
        after = ahead - move
        gain = (gradient * move).sum((0, 2)) / 2
        if gain.max() < TOLERANCE:
            return after[:-1], after[-1]
        uphill = (gradient * (after - at)).sum((0, 2)) > 0
        age = torch.where(uphill, torch.ones_like(age), age)
        older, age = age, (1 + torch.sqrt(1 + 4 * age * age)) / 2
        ahead = after + ((older - 1) / age)[:, None] * (after - at)
        at = after
    return at[:-1], at[-1]


def _principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Axes [F, r] of features with mean 0, and the mean square along each [r]; r = min(n, F)."""
    count, features = x.shape
    if features <= count:
        square, axes = torch.linalg.eigh(x.T @ x / count)
        return axes, square.clamp_min(0)
    square, sides = torch.linalg.eigh(x @ x.T / count)
    kept = square > square[-1] * 1e-6
    square, sides = square[kept], sides[:, kept]
    return (x.T @ sides) / torch.sqrt(square * count), square
