"""The optimiser is torch's AdamW with decay on matrices only; the rate is LLaMA's warm-up and cosine."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from toto.config import ModelConfig, load
from toto.train.models.llama import Llama
from toto.train.optimizer import learning_rate, make_optimizer, set_learning_rate

PAPER = load().recipe("pretrain")
MODEL = ModelConfig(name="test", dim=16, layers=2, heads=2, mlp_hidden=32)


def loss(model: nn.Module, step: int) -> torch.Tensor:
    ids = torch.randint(4, 64, (3, 13), generator=torch.Generator().manual_seed(step))
    return model(ids[:, :-1], ids[:, 1:]).mean()


def test_the_papers_recipe_is_the_papers() -> None:
    stated = (PAPER.learning_rate, PAPER.beta1, PAPER.beta2, PAPER.warmup_steps, PAPER.steps, PAPER.batch_tokens)
    assert stated == (3e-4, 0.9, 0.95, 2000, 10**6, 2**20)  # §3.2
    groups = make_optimizer(Llama(MODEL, 64), PAPER).param_groups
    assert {(group["betas"], group["eps"]) for group in groups} == {((0.9, 0.95), 1e-8)}


def test_matrices_decay_and_gains_do_not() -> None:
    model = Llama(MODEL, 64)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decay = {
        names[id(parameter)]: group["weight_decay"]
        for group in make_optimizer(model, PAPER).param_groups
        for parameter in group["params"]
    }
    assert decay.keys() == set(names.values())
    assert {name for name, rate in decay.items() if rate == 0} == {name for name in decay if "norm" in name}
    assert {rate for rate in decay.values() if rate} == {PAPER.weight_decay}


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_updates_are_those_of_torchs_plain_adamw_and_clipping(clip: float) -> None:
    recipe = replace(PAPER, warmup_steps=3, steps=10, learning_rate=0.01, clip=clip)
    ours, plain = Llama(MODEL, 64), Llama(MODEL, 64)
    optimizer = make_optimizer(ours, recipe)
    peer = torch.optim.AdamW(
        [
            {"params": [p for n, p in plain.named_parameters() if "norm" not in n], "weight_decay": 0.1},
            {"params": [p for n, p in plain.named_parameters() if "norm" in n], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
        foreach=False,
        fused=False,
    )
    for step in range(6):
        for model, chosen in ((ours, optimizer), (plain, peer)):
            set_learning_rate(chosen, learning_rate(recipe, step))
            loss(model, step).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
            assert norm > 0.05, "clipping has something to do"
            chosen.step()
            chosen.zero_grad()
    for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(ours.table.weight, Llama(MODEL, 64).table.weight, atol=1e-3)


@pytest.mark.parametrize(("warmup", "steps", "end"), [(0, 30, 0.1), (5, 30, 0.1), (7, 8, 0.0), (10, 25, 1.0)])
def test_the_rate_is_that_of_torchs_schedulers(warmup: int, steps: int, end: float) -> None:
    recipe = replace(PAPER, learning_rate=0.02, warmup_steps=warmup, steps=steps, min_learning_rate=end)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.02)
    cosine = CosineAnnealingLR(optimizer, T_max=steps - warmup, eta_min=0.02 * end)
    schedule = cosine
    if warmup:
        rising = LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
        schedule = SequentialLR(optimizer, [rising, cosine], milestones=[warmup])
    for step in range(steps):
        assert learning_rate(recipe, step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        schedule.step()


def test_the_rate_in_closed_form() -> None:
    assert learning_rate(PAPER, 0) == 3e-4 / 2000  # above zero
    assert learning_rate(PAPER, 1999) == learning_rate(PAPER, 2000) == 3e-4
    half = (PAPER.steps + 2000) // 2
    assert learning_rate(PAPER, half) == pytest.approx(3e-4 * 0.55)
    quarter = 2000 + (PAPER.steps - 2000) // 4
    assert learning_rate(PAPER, quarter) == pytest.approx(3e-4 * (0.1 + 0.45 * (1 + math.cos(math.pi / 4))))
    assert learning_rate(PAPER, PAPER.steps) == learning_rate(PAPER, 10 * PAPER.steps) == pytest.approx(3e-5)
    rates = [learning_rate(PAPER, step) for step in range(0, PAPER.steps, 997)]
    assert max(rates) <= 3e-4 and rates[3:] == sorted(rates[3:], reverse=True)


def test_no_warm_up_and_a_warm_up_longer_than_the_run_are_possible() -> None:
    assert learning_rate(replace(PAPER, warmup_steps=0), 0) == 3e-4
    short = replace(PAPER, steps=10, warmup_steps=100)
    assert [learning_rate(short, step) for step in range(10)] == pytest.approx([3e-6 * (i + 1) for i in range(10)])


def test_wsd_warms_up_stays_and_falls_on_a_line() -> None:
    recipe = replace(PAPER, schedule="wsd", warmup_steps=10, steps=100, decay_share=0.2, min_learning_rate=0.1)
    rates = [learning_rate(recipe, step) / recipe.learning_rate for step in range(102)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10:81] == [1.0] * 71
    assert rates[90] == pytest.approx(0.55) and rates[100] == rates[101] == pytest.approx(0.1)
