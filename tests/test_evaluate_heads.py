"""Heads on frozen features: against AIM's own numbers, against another optimiser, and on data of known answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from toto.evaluate.heads import LinearHeads, fit_linear
from toto.evaluate.pooling import EPS, AttentionPooling, frame_means

LABELS = torch.tensor([0, 2, 5, 6])
LOSSES = {"aim_default": 2.1902291774749756, "aim_nobn": 2.6703219413757324}
GRADIENTS = ("cls_token", "k.weight", "v.weight", "linear.weight")


@pytest.fixture(scope="module")
def golden(root: Path) -> dict[str, torch.Tensor]:
    with np.load(root / "tests" / "golden" / "pooling" / "aim.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def aim_head(golden: dict[str, torch.Tensor], case: str) -> AttentionPooling:
    head = AttentionPooling(32, 4, 7)
    head.load_state_dict({name: golden[f"{case}/{name}"] for name in GRADIENTS}, strict=False)
    return head


def set_statistics(head: AttentionPooling, mean: torch.Tensor, variance: torch.Tensor) -> None:
    head.mean.copy_(mean)
    head.variance.copy_(variance)


@pytest.mark.parametrize("case", ["aim_default", "aim_nobn"])
def test_attention_pooling_is_that_of_aim_in_logits_loss_and_gradients(
    golden: dict[str, torch.Tensor], case: str
) -> None:
    x, head = golden[f"{case}.x"], aim_head(golden, case)
    flat = x.flatten(0, 1)
    if case == "aim_default":
        set_statistics(head, flat.mean(0), flat.var(0, unbiased=False))  # its training mode: those of the batch
    else:
        set_statistics(head, torch.zeros(32), torch.full((32,), 1 - EPS))
    logits = head(x)
    torch.testing.assert_close(logits, golden[f"{case}.logits_train"], atol=2e-6, rtol=0)
    loss = cross_entropy(logits, LABELS)
    loss.backward()
    assert loss.item() == pytest.approx(LOSSES[case], abs=1e-6)
    for name in GRADIENTS:
        found = head.get_parameter(name).grad
        torch.testing.assert_close(found, golden[f"{case}.grad/{name}"], atol=2e-6, rtol=0)


def test_attention_pooling_with_running_statistics_is_aims_evaluation_mode(golden: dict[str, torch.Tensor]) -> None:
    head = aim_head(golden, "aim_default")
    set_statistics(head, golden["aim_default/bn.running_mean"], golden["aim_default/bn.running_var"])
    torch.testing.assert_close(head(golden["aim_default.x"]), golden["aim_default.logits_eval"], atol=2e-6, rtol=0)


def test_a_query_of_zeros_is_average_pooling() -> None:
    torch.manual_seed(0)
    x, head = torch.randn(3, 10, 8), AttentionPooling(8, 2, 4)
    torch.nn.init.zeros_(head.cls_token)
    expected = head.linear(head.v(x.mean(1) / (1 + EPS) ** 0.5))
    torch.testing.assert_close(head(x), expected, atol=1e-6, rtol=0)


def test_frame_means_are_the_means_of_each_frames_cells() -> None:
    codes = torch.arange(24.0).reshape(1, 12, 2)  # 3 frames of 4 cells
    assert frame_means(codes, 3)[0].tolist() == [[3, 4], [11, 12], [19, 20]]


def optimum(x: torch.Tensor, y: torch.Tensor, classes: int, penalty: float) -> float:
    """The lowest value of the objective, by torch's L-BFGS in float64."""
    weight = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    lbfgs = torch.optim.LBFGS([weight, bias], max_iter=400, tolerance_change=1e-13, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        lbfgs.zero_grad()
        value = objective(x, y, weight, bias, penalty)
        value.backward()
        return value

    lbfgs.step(closure)  # type: ignore[no-untyped-call]
    return objective(x, y, weight, bias, penalty).item()


def objective(
    x: torch.Tensor, y: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, penalty: float
) -> torch.Tensor:
    return cross_entropy(x @ weight + bias, y) + penalty / 2 * weight.square().sum()


def blobs(count: int, features: int, classes: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping classes; channels of very different size and offset."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centres = torch.randn(classes, features, generator=generator)
    x = 0.4 * centres[y] + torch.randn(count, features, generator=generator)
    return x * torch.logspace(-3, 3, features) + 10, y


@pytest.mark.parametrize("features", [12, 90], ids=["fewer channels than windows", "more channels than windows"])
def test_linear_heads_reach_the_optimum_for_every_penalty_at_once(features: int) -> None:
    x, y = blobs(60, features)
    penalties = (1e-2, 1e-1, 1.0)
    heads = fit_linear(x, y, 5, penalties)
    normal = ((x - x.mean(0)) / (x.var(0, unbiased=False) + EPS).sqrt()).double()
    for i, penalty in enumerate(penalties):
        weight, bias = heads.weight[:, i].double(), heads.bias[i].double()
        found = float(objective(normal, y, weight, bias, penalty))
        assert found - optimum(normal, y, 5, penalty) < 2e-4, penalty


def test_linear_heads_predict_log_probabilities_of_unseen_windows() -> None:
    (x, y), (unseen, truth) = blobs(400, 10), blobs(100, 10, seed=0)
    heads = fit_linear(x, y, 5, (0.01,))
    found = heads.log_probabilities(unseen)[:, 0]
    torch.testing.assert_close(found.exp().sum(1), torch.ones(100))
    assert (found.argmax(1) == truth).float().mean() > 0.5


def test_a_constant_channel_does_no_harm() -> None:
    x, y = blobs(60, 6)
    x[:, 2] = 7.0
    heads: LinearHeads = fit_linear(x, y, 5, (0.01,))
    assert torch.isfinite(heads.log_probabilities(x)).all()


def test_golden_losses_are_those_of_the_file(golden: dict[str, torch.Tensor]) -> None:
    assert json.dumps(sorted({name.split("/")[0].split(".")[0] for name in golden})) == '["aim_default", "aim_nobn"]'
