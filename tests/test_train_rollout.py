"""Decoding: the same codes as a loop without any cache, past the context too; a clip has its own bits in any batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from toto.config import ModelConfig
from toto.errors import UsageError
from toto.shards.ids import CODE_OFFSET, IMAGE_START, VIDEO_START
from toto.train.generation.rollout import REGIMES, NotFinite, Regime, Rollout, Segment, segments
from toto.train.generation.sampling import Sampling
from toto.train.models import LanguageModel, make_model, packed, small
from toto.train.models.decoder import Decoder
from toto.train.models.products import cpu_has_bf16
from toto.train.models.rows import Product, least_of, least_rows

CODES, CELLS, FRAMES = 64, 6, 4  # a context of four frames
MODEL = ModelConfig(name="test", dim=48, layers=2, heads=2, mlp_hidden=96)
GREEDY = Sampling(greedy=True)


def untrained(seed: int = 0, arch: str = "llama") -> LanguageModel:
    """A model whose next codes depend on everything before: its logits are far apart."""
    config = replace(MODEL, arch=arch, heads=0, mlp_hidden=0) if arch == "mamba" else replace(MODEL, arch=arch)
    model = make_model(config, CODES + CODE_OFFSET, seed=seed).requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.mul_(8 if weight.ndim == 2 and model.decays(name) else 1)
    return model


def naive(model: LanguageModel, start: int, known: np.ndarray, prompt: int, frames: int, regime: str) -> np.ndarray:
    """The most likely codes of one clip, each by a forward pass over everything before it in its context."""
    codes = np.zeros((frames, CELLS), np.int64)
    codes[:prompt] = known[:prompt]
    first = 0
    for frame in range(prompt, frames):
        if frame - first == FRAMES:
            first = frame - FRAMES // 2
        for cell in range(CELLS):
            before = codes if regime == "free" else known
            inside = codes if regime != "token" else known
            past = np.concatenate([before[first:frame].reshape(-1), inside[frame, :cell]])
            logits = model(torch.from_numpy(np.append(start, past + CODE_OFFSET))[None])[0, -1]
            codes[frame, cell] = int(logits[CODE_OFFSET:].argmax())
    return codes


@pytest.mark.parametrize("regime", ["free", "frame", "token"])
@pytest.mark.parametrize(
    ("arch", "prompt", "start"),
    [("llama", 0, VIDEO_START), ("llama", 2, IMAGE_START), ("gpt2", 3, VIDEO_START), ("mamba", 2, VIDEO_START)],
)
def test_a_rollout_is_a_loop_of_forward_passes(
    regime: str, arch: str, prompt: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, frames = untrained(arch=arch), 7  # three segments
    known = np.random.default_rng(prompt).integers(0, CODES, (2, frames, CELLS))
    monkeypatch.setattr(small, "FAR", 0)  # keys and values count as large
    roll = Rollout(model, start, FRAMES, regime, GREEDY)  # type: ignore[arg-type]
    with packed.packed(model):
        found, _ = roll(torch.from_numpy(known), prompt, torch.zeros(2, frames, CELLS, dtype=torch.float64))
    for i in range(2):
        assert np.array_equal(found[i], naive(model, start, known[i], prompt, frames, regime)), f"clip {i}"


def test_a_full_context_goes_on_from_its_last_half() -> None:
    assert segments(1, 4, 4) == [Segment(0, 1, 4)]
    assert segments(2, 9, 4) == [Segment(0, 2, 4), Segment(2, 4, 6), Segment(4, 6, 8), Segment(6, 8, 9)]
    assert segments(5, 7, 4) == [Segment(3, 5, 7)]  # a prompt longer than the context: its last half
    assert segments(0, 1, 1) == [Segment(0, 0, 1)]
    with pytest.raises(UsageError, match="whose context is one"):
        segments(1, 2, 1)


@given(prompt=st.integers(0, 40), more=st.integers(1, 80), context=st.integers(2, 17))
def test_every_frame_is_made_once_and_fits_its_context(prompt: int, more: int, context: int) -> None:
    found = segments(prompt, prompt + more, context)
    assert [f for s in found for f in range(s.new, s.end)] == list(range(prompt, prompt + more))
    assert all(s.first <= s.new and s.end - s.first <= context for s in found)
    assert all(s.new - s.first >= context // 2 for s in found[1:])


@pytest.mark.parametrize("regime", REGIMES)
def test_a_frame_whose_logits_are_not_finite_is_named(regime: Regime) -> None:
    model = untrained()
    with torch.no_grad():
        model.table.weight[CODE_OFFSET + 1] = torch.nan
    known = torch.zeros(2, 3, 4, dtype=torch.int64)
    with pytest.raises(NotFinite, match="logits of frame 2 are not finite"):
        Rollout(model, VIDEO_START, 3, regime, Sampling())(known, 1, torch.rand(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arch", ["llama", "gpt2", "mamba"])
@pytest.mark.parametrize("small", [0, 1 << 24])
def test_what_decodes_gives_the_same_logits_and_leaves_the_model_alone(
    arch: str, dtype: torch.dtype, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "SMALL", small)
    model = untrained(arch=arch).to(dtype)
    ids = torch.randint(CODE_OFFSET, CODES + CODE_OFFSET, (3, 20), generator=torch.Generator().manual_seed(0))
    before, near, threads = model(ids), 1e-4 if dtype == torch.float32 else 1.0, torch.get_num_threads()
    with packed.packed(model):
        torch.testing.assert_close(model(ids), before, atol=near * float(before.std()), rtol=0.05)
    assert torch.equal(model(ids), before) and torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("way", "dtype"),
    [
        *((way, torch.float32) for way in ("few calls", "one by one", "packed", "as they are")),
        pytest.param(
            "packed", torch.bfloat16, marks=pytest.mark.skipif(not cpu_has_bf16(), reason="packed in fp32 here")
        ),
    ],
)
@pytest.mark.parametrize("arch", ["llama", "gpt2", "mamba"])
def test_the_bits_of_a_clip_are_its_own(
    arch: str, way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = untrained(arch=arch).to(dtype)
    ids = torch.randint(CODE_OFFSET, CODES + CODE_OFFSET, (17, 12), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(packed, "SMALL", 0 if way in ("packed", "as they are") else 1 << 24)
    if way == "as they are":
        monkeypatch.setattr(packed, "least_packed_rows", lambda model: None)
    if way == "one by one":  # a processor where bits depend on more than the number of rows
        monkeypatch.setattr(small, "least_rows", lambda matrices: None)

    def logits(rows: int) -> list[torch.Tensor]:
        decoder = Decoder(model, rows, 12)
        made = [decoder.feed(ids[:rows, :6])]
        read = decoder.mark()
        made += [decoder.feed(piece) for piece in ids[:rows, 6:].flip(1).split(1, dim=1)]
        decoder.rewind(read)  # as after a frame that was made, where the true one is read
        return [*made, *(decoder.feed(piece) for piece in (ids[:rows, 6:9], *ids[:rows, 9:].split(1, dim=1)))]

    with packed.packed(model):
        whole = logits(len(ids))
        for rows in (1, 2, 3, 4, 7):
            for made, expected in zip(logits(rows), whole, strict=True):
                assert torch.equal(made, expected[:rows]), rows
    if dtype == torch.float32:
        torch.testing.assert_close(whole[-1], model(ids)[:, -1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_product_of_fewer_rows_than_have_their_own_bits_is_one_of_enough(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, bias, rows = (torch.randn(shape, dtype=dtype) for shape in ((24, 48), (24,), (9, 48)))
    seen: list[int] = []
    product = packed.PackedLinear(weight, bias, least=4)
    multiply = product.multiply
    monkeypatch.setattr(product, "multiply", lambda x: seen.append(len(x)) or multiply(x))
    for n in (2, 3, 4, 9):
        made = product(rows[None, :n])
        near = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(
            made[0], torch.nn.functional.linear(rows[:n], weight, bias), atol=near * 7, rtol=near
        )
    assert seen == [4, 6, 4, 9]


def test_the_bits_of_a_row_do_not_depend_on_how_rows_lie_in_memory() -> None:
    """Those of one clip of Mamba lie by columns, those of several by rows."""
    rows, matrix = torch.randn(2, 100, 48, generator=torch.Generator().manual_seed(0))
    product = Product(matrix[:5].t(), None, least_rows([matrix[:5].t()]))
    assert torch.equal(product(rows[:9].t().contiguous().t()), product(rows)[:9])


def test_fewer_rows_than_have_their_own_bits_are_told_from_those_that_depend_on_more() -> None:
    def least(off: set[int]) -> int | None:
        """What is found where so many rows come out with other bits."""
        return least_of(lambda x: torch.zeros(len(x), 2) + (len(x) in off), 3, torch.zeros(1))

    assert [least(off) for off in (set(), {1, 2, 3}, {1, 5, 11}, {100})] == [1, 4, 12, None]
