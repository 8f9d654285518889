"""Formulas with gradients by hand: the values and gradients of the plain ones, of less memory."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from toto.train.models.head_loss import head_losses
from toto.train.models.lean import heads, rms_norm, swiglu_down
from toto.train.models.rope import rotate, rotation

ROWS, LENGTH, WIDTH, HEADS, HIDDEN = 2, 9, 24, 3, 20
TURN = rotation(LENGTH, WIDTH // HEADS, 100.0)


def values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_norm(x: Tensor, gain: Tensor) -> Tensor:
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


def plain_heads(qkv: Tensor) -> Tensor:
    q, k, v = qkv.view(ROWS, LENGTH, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
    return torch.stack([rotate(q, TURN), rotate(k, TURN), v])


def linear(weight: Tensor) -> torch.nn.Linear:
    made = torch.nn.Linear(HIDDEN, WIDTH, bias=False, device="meta")
    del made.weight
    made.weight = weight  # as it is: a Parameter would be a leaf of its own
    return made


def plain_swiglu(gate_up: Tensor, down: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "norm": (lambda x, gain: rms_norm(x, gain, 1e-5), plain_norm, [(ROWS, LENGTH, WIDTH), (WIDTH,)]),
    "heads": (lambda qkv: torch.stack(heads(qkv, HEADS, TURN)), plain_heads, [(ROWS, LENGTH, 3 * WIDTH)]),
    "swiglu": (
        lambda gate_up, down: swiglu_down(gate_up, linear(down)),
        plain_swiglu,
        [(ROWS, LENGTH, 2 * HIDDEN), (WIDTH, HIDDEN)],
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PAIRS)
def test_a_formula_by_hand_has_the_values_and_gradients_of_the_plain_one(name: str, dtype: torch.dtype) -> None:
    by_hand, plain, shapes = PAIRS[name]
    given = [values(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes)]
    ours, theirs = ([t.clone().requires_grad_() for t in given] for _ in range(2))
    found, expected = by_hand(*ours), plain(*(t.float() for t in theirs))
    assert found.dtype == dtype
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.05}
    torch.testing.assert_close(found.float(), expected, **tolerance)
    weights = values(*found.shape, seed=9)
    (found.float() * weights).sum().backward()
    (expected * weights).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad is not None and mine.grad.dtype == dtype
        torch.testing.assert_close(mine.grad, other.grad, **tolerance)
    with torch.no_grad():  # the plain formula, which decoding and compiled blocks use
        torch.testing.assert_close(by_hand(*given).float(), expected, **tolerance)


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(1, 12),
    chunk=st.integers(1, 14),
    used=st.integers(5, 16),
    ignored=st.sets(st.integers(0, 11)),
    even=st.booleans(),
)
def test_losses_of_the_head_are_cross_entropy(
    tokens: int, chunk: int, used: int, ignored: set[int], even: bool
) -> None:
    targets = torch.arange(tokens) * 7 % used
    targets[[i for i in ignored if i < tokens]] = -100
    x, table = values(tokens, 6).requires_grad_(), values(16, 6, seed=1).requires_grad_()
    found = head_losses(x, table, targets, used, chunk)
    expected = F.cross_entropy(x @ table[:used].t(), targets, reduction="none")
    torch.testing.assert_close(found, expected)
    weights = torch.ones(()) if even else torch.linspace(0.5, 2, tokens)
    ours = torch.autograd.grad((found * weights).sum() if not even else found.sum() / 3, [x, table])
    theirs = torch.autograd.grad((expected * weights).sum() if not even else expected.sum() / 3, [x, table])
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
