"""Products in bf16 on a CPU without instructions for it: the sums of fp32, rounded once, forward and backward."""

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from train_toy import SHAPES, USED

from toto.train.models import make_model, products

HALF_STEP = 2.0**-8  # the most that rounding to bf16 changes, relatively
PRODUCTS = ("mm", "addmm", "bmm", "attention", "linear", "matmul")


@pytest.fixture(autouse=True)
def no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr(products, "cpu_has_bf16", lambda: False)


class Halves(TorchDispatchMode):
    """Counts the products that torch is asked to make of numbers in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(part in func.__name__ for part in PRODUCTS):
            self.found[func.__name__] += any(isinstance(a, Tensor) and a.dtype == torch.bfloat16 for a in args)
        return func(*args, **(kwargs or {}))


def values(*shape: int, seed: int) -> Tensor:
    """fp32, with a gradient."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def halved(x: Tensor) -> Tensor:
    """fp64, rounded to bf16; the gradient passes as if it were not."""
    return x.double() + (x.bfloat16().double() - x.double()).detach()


def close(found: Tensor | None, exact: Tensor | None) -> None:
    """Whether it is the exact number rounded to bf16, or nearer, but for the order of the sum."""
    assert found is not None and exact is not None
    torch.testing.assert_close(found.double(), exact.double(), rtol=HALF_STEP, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(1, 5),
    width=st.integers(1, 40),
    out=st.integers(1, 20),
    bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_a_linear_layer_gives_the_exact_sums_rounded_once(
    rows: int, width: int, out: int, bias: bool, seed: int
) -> None:
    shapes = [(2, rows, width), (out, width), (out,)][: 2 + bias]
    ours, theirs = ([values(*shape, seed=seed + i) for i, shape in enumerate(shapes)] for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        found = products.linear(*ours)
    exact = F.linear(*map(halved, theirs))
    assert found.dtype == torch.bfloat16
    close(found, exact)
    weights = values(*found.shape, seed=9).bfloat16()
    found.backward(weights)
    exact.backward(weights.double())
    for mine, other in zip(ours, theirs, strict=True):
        close(mine.grad, other.grad)


def test_only_what_asks_for_a_gradient_gets_one_and_any_shape_will_do() -> None:
    x, weight = values(3, 4, seed=0).detach().bfloat16(), values(5, 4, seed=1)
    products.linear(x, weight).float().sum().backward()
    assert weight.grad is not None and x.grad is None
    assert [products.linear(x[part], weight).shape for part in (0, slice(0))] == [(5,), (0, 5)]


@pytest.mark.parametrize("into", [False, True])
def test_a_plain_product_is_rounded_once_also_under_autocast(into: bool) -> None:
    a, b = values(6, 30, seed=0).detach().bfloat16(), values(30, 7, seed=1).detach().bfloat16()
    out = torch.empty(6, 7, dtype=torch.bfloat16) if into else None
    with torch.autocast("cpu", torch.bfloat16):
        found = products.multiply(a, b, out)
    assert found.dtype == torch.bfloat16 and (out is None or found is out)
    close(found, a.double() @ b.double())


@pytest.mark.parametrize("arch", sorted(SHAPES))
def test_a_step_in_bf16_makes_no_slow_product_and_has_the_gradients_of_torchs_own(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = torch.randint(4, USED, (2, 41), generator=torch.Generator().manual_seed(0))

    def gradients(has_bf16: bool, half: bool) -> dict[str, Tensor]:
        monkeypatch.setattr(products, "cpu_has_bf16", lambda: has_bf16)
        model = make_model(SHAPES[arch], USED)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses = model(ids[:, :-1], ids[:, 1:])
        losses.mean().backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    with Halves() as halves:
        ours = gradients(has_bf16=False, half=True)
    assert halves.found and not +halves.found
    with Halves() as halves:
        torchs = gradients(has_bf16=True, half=True)
    assert +halves.found, "the counter sees them"
    exact = gradients(has_bf16=True, half=False)

    def far(found: dict[str, Tensor]) -> float:
        return sum(float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact) / len(exact)

    assert ours.keys() == exact.keys() and 0 < far(ours) < 1.5 * far(torchs)
