"""Sampling: the likeliest codes alone, as often as the softmax says; the same numbers for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET
from toto.train.generation.sampling import Sampling, uniforms


@given(
    logits=st.lists(st.floats(-40, 40, width=32), min_size=2, max_size=40),
    uniform=st.floats(0, 1, exclude_max=True),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.none() | st.floats(1e-6, 1),
    temperature=st.floats(0.1, 5),
)
def test_choices_are_among_the_likeliest(
    logits: list[float], uniform: float, top_k: int | None, top_p: float | None, temperature: float
) -> None:
    row = torch.tensor([[0.0] * CODE_OFFSET + logits])
    code = int(Sampling(temperature, top_k, top_p).choose(row, torch.tensor([uniform], dtype=torch.float64)).codes)
    better = sum(other > logits[code] for other in logits)
    if top_k is not None:
        assert better < top_k
    if top_p is not None:
        kept = sorted(range(len(logits)), key=lambda i: -logits[i])[:top_k]
        shares = torch.tensor([logits[i] for i in kept]).double().div(temperature).softmax(0)
        assert float(shares[[i for i, k in enumerate(kept) if logits[k] > logits[code]]].sum()) < top_p + 1e-9
    assert Sampling(temperature, 1, top_p).choose(row, torch.tensor([uniform], dtype=torch.float64)).codes == max(
        range(len(logits)), key=lambda i: logits[i]
    )


def test_codes_come_as_often_as_the_softmax_says() -> None:
    logits = torch.tensor([0.0] * CODE_OFFSET + [1.0, 3.0, 2.0, -1.0])
    drawn = uniforms(0, range(100), 20, 10).flatten()
    for sampling, expected in (
        (Sampling(), torch.tensor([1.0, 3.0, 2.0, -1.0]).softmax(0)),
        (Sampling(temperature=2.0), torch.tensor([0.5, 1.5, 1.0, -0.5]).softmax(0)),
        (Sampling(top_k=2), torch.tensor([0.0, 0.731, 0.269, 0.0])),  # 1 / (1 + e^-1)
        (Sampling(top_p=0.7), torch.tensor([0.0, 0.731, 0.269, 0.0])),  # shares 0.66, 0.24: two reach 0.7
    ):
        codes = sampling.choose(logits.expand(len(drawn), -1), drawn).codes
        found = torch.bincount(codes, minlength=4) / len(drawn)
        torch.testing.assert_close(found, expected, atol=0.012, rtol=0)


def test_uniform_numbers_belong_to_the_sample() -> None:
    together = uniforms(5, range(6), 3, 4)
    assert torch.equal(uniforms(5, range(4, 6), 3, 4), together[4:])
    assert torch.equal(uniforms(5, range(6), 2, 4), together[:, :2]), "a longer clip begins differently"
    assert together[0, 0, 0] == pytest.approx(0.9881008497719096, abs=0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(greedy=True), Sampling(top_k=6), Sampling(top_p=0.5)])
def test_logits_that_are_not_finite_give_a_code_of_the_table_and_show_in_the_tops(
    sampling: Sampling, wrong: float
) -> None:
    logits = torch.randn(3, CODE_OFFSET + 6, generator=torch.Generator().manual_seed(0))
    logits[1, CODE_OFFSET + 2] = wrong
    codes, tops = sampling.choose(logits, torch.full((3,), 0.999, dtype=torch.float64))
    assert ((codes >= 0) & (codes < 6)).all(), "a code beyond the table is an error of the device"
    assert tops.isfinite().flatten().tolist() == [True, False, True]
    logits[1] = -float("inf")
    logits[1, CODE_OFFSET + 2] = 0.0
    assert sampling.choose(logits, torch.zeros(3, dtype=torch.float64)).tops.isfinite().all(), "impossible codes may be"


@pytest.mark.parametrize(
    "wrong",
    [
        *[{"temperature": 0.0}, {"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 2}],
        *[{"greedy": True, "top_k": 5}, {"greedy": True, "top_p": 0.5}, {"greedy": True, "temperature": 0.5}],
    ],
)
def test_impossible_sampling_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError):
        Sampling(**wrong)
