"""GPT-2 and Mamba of Table 6 do all that Llama does; that their logits are those of transformers: test_train_export."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from train_toy import MODEL, call, command_line, history, same_state, world

from toto.config import ModelConfig, load
from toto.errors import UsageError
from toto.train.load import load_model
from toto.train.models import LanguageModel, make_model, mamba
from toto.train.models.decoder import Decoder
from toto.train.models.gpt2 import GPT2
from toto.train.models.mamba import Mamba
from toto.train.models.scan import CHUNK, selective_scan
from toto.train.optimizer import make_optimizer

USED = 68  # 64 codes
SHAPES = {
    "gpt2": ModelConfig(name="small", arch="gpt2", dim=48, layers=3, heads=4, mlp_hidden=80),
    "mamba": ModelConfig(name="small", arch="mamba", dim=40, layers=3, expand=3, states=5),
}
OTHERS = pytest.mark.parametrize("arch", sorted(SHAPES))


def sequences(rows: int = 2, length: int = 2 * CHUNK + 7, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, USED, (rows, length), generator=torch.Generator().manual_seed(seed))


def loud(arch: str) -> LanguageModel:
    """A model whose every weight shows in the logits."""
    model = make_model(SHAPES[arch], USED, seed=1)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and model.decays(name):
                weight.mul_(10)
            elif weight.ndim == 1:
                weight.add_(0.2 * torch.randn(weight.shape, generator=noise))
    return model.requires_grad_(False)


@settings(max_examples=20)
@given(length=st.integers(1, 3 * CHUNK), cut=st.integers(0, 3 * CHUNK), seed=st.integers(0, 99))
def test_the_scan_is_the_recurrence_and_goes_on_from_any_cut(length: int, cut: int, seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    x, B, C = (torch.randn(2, length, n, generator=drawn) for n in (6, 3, 3))
    delta, A, D = torch.rand(2, length, 6, generator=drawn), -torch.rand(6, 3, generator=drawn) * 9, torch.randn(6)
    state, expected = torch.zeros(2, 6, 3), []
    for t in range(length):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * x[:, t])[..., None] * B[:, t, None]
        expected.append((state * C[:, t, None]).sum(-1) + D * x[:, t])
    cut = min(cut, length - 1)
    found, kept = [], torch.zeros(2, 6, 3)
    for part in (slice(0, cut), slice(cut, length)):
        if part.stop > part.start:
            y, kept = selective_scan(x[:, part], delta[:, part], A, B[:, part], C[:, part], D, kept)
            found.append(y)
    torch.testing.assert_close(torch.cat(found, 1), torch.stack(expected, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kept, state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_authors_kernel_is_called_as_it_is_written(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As state-spaces/mamba has it: channels before positions, u, delta, B and C in one dtype, y in that of u."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, **more):  # type: ignore[no-untyped-def]
        assert u.shape == delta.shape == (2, 6, 9) and B.shape == C.shape == (2, 3, 9)
        assert all(t.stride(-1) == 1 for t in (u, delta, B, C)) and {t.dtype for t in (u, delta, B, C)} == {dtype}
        assert A.shape == (6, 3) and D.shape == (6,) and A.dtype == D.dtype == torch.float32
        assert more == {"return_last_state": True} and z is delta_bias is None and not delta_softplus
        state, ys = torch.zeros(2, 6, 3), []
        for t in range(u.shape[2]):
            step, x = delta[..., t, None].float(), u[..., t, None].float()
            state = torch.exp(step * A) * state + step * B[:, None, :, t].float() * x
            ys.append((state * C[:, None, :, t].float()).sum(-1) + D * u[..., t].float())
        return torch.stack(ys, 2).to(u.dtype), state

    package = ModuleType("mamba_ssm.ops.selective_scan_interface")
    package.selective_scan_fn = selective_scan_fn  # type: ignore[attr-defined]
    for module in (ModuleType("mamba_ssm"), ModuleType("mamba_ssm.ops"), package):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    drawn = torch.Generator().manual_seed(0)
    x, B, C = (torch.randn(2, 9, n, generator=drawn).to(dtype) for n in (6, 3, 3))
    delta, A = torch.rand(2, 9, 6, generator=drawn), -torch.rand(6, 3, generator=drawn) * 9
    D, empty = torch.randn(6, generator=drawn), torch.zeros(2, 6, 3)
    mamba._fused_scan.cache_clear()
    try:
        scan = mamba._scan_from_nothing(torch.device("cuda"))
        assert scan is not selective_scan and mamba._scan_from_nothing(torch.device("cpu")) is selective_scan
        found = scan(x, delta, A, B, C, D, empty)
    finally:
        mamba._fused_scan.cache_clear()
    expected = selective_scan(x, delta.to(dtype), A, B, C, D, empty)
    near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.01}  # y is rounded
    torch.testing.assert_close(found[0].float(), expected[0], **near)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)


def test_gradients_of_the_scan_are_those_of_finite_differences() -> None:
    drawn = torch.Generator().manual_seed(0)
    x, delta, B, C = (torch.rand(1, CHUNK + 3, n, generator=drawn).requires_grad_() for n in (2, 2, 2, 2))
    A, D, state = -torch.rand(2, 2), torch.rand(2), torch.rand(1, 2, 2)
    inputs = (x, delta, A.requires_grad_(), B, C, D.requires_grad_(), state.requires_grad_())
    y, last = selective_scan(*inputs)
    (y.sum() + last.sum()).backward()
    for tensor in inputs:
        assert tensor.grad is not None
        place, step = torch.unravel_index(tensor.grad.abs().argmax(), tensor.shape), 1e-2
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                tensor[place] += sign * step
                y, last = selective_scan(*inputs)
                ends.append(float(y.double().sum() + last.double().sum()))
                tensor[place] -= sign * step
        assert float(tensor.grad[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=0.02)


@OTHERS
def test_a_later_id_changes_nothing_before_it(arch: str) -> None:
    model, ids, changed = loud(arch), sequences(), sequences()
    changed[:, 20] = 4 + (changed[:, 20] - 3) % 64
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:22], after[:, 20:22], atol=1e-3)


@OTHERS
def test_the_same_ids_at_other_places_mean_something_else(arch: str) -> None:
    model = loud(arch)
    logits = model(torch.full((1, 9), 7))[0]
    assert float((logits[1:] - logits[:-1]).abs().amax(-1).min()) > 1e-3


@OTHERS
@settings(max_examples=10)
@given(pieces=st.lists(st.integers(1, CHUNK + 2), min_size=1, max_size=4), back=st.integers(0, 40))
def test_a_decoder_fed_in_any_pieces_gives_the_logits_of_the_whole(arch: str, pieces: list[int], back: int) -> None:
    model, ids = loud(arch), sequences(3, sum(pieces))
    decoder, whole = Decoder(model, rows=3, length=200), model(ids)
    marks = [decoder.mark()]
    for piece in pieces:
        start = decoder.position
        logits = decoder.feed(ids[:, start : start + piece])
        torch.testing.assert_close(logits, whole[:, start + piece - 1], atol=2e-4, rtol=1e-4)
        marks.append(decoder.mark())
    decoder.rewind(marks[back % len(pieces)])
    torch.testing.assert_close(decoder.feed(ids[:, decoder.position :]), whole[:, -1], atol=2e-4, rtol=1e-4)


@OTHERS
def test_checkpointed_blocks_give_the_same_gradients(arch: str) -> None:
    plain, lean = (make_model(SHAPES[arch], USED, seed=3, checkpoint_blocks=again) for again in (False, True))
    for model in (plain, lean):
        model(sequences(), sequences(seed=1)).sum().backward()
    for mine, theirs in zip(plain.parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_decay_leaves_gains_biases_and_the_logarithms_of_a_alone() -> None:
    recipe = load().recipe("pretrain")
    for config in SHAPES.values():
        model = make_model(config, USED)
        without = {id(p) for p in make_optimizer(model, recipe).param_groups[1]["params"]}
        spared = {name.rpartition(".")[2] for name, p in model.named_parameters() if id(p) in without}
        assert spared == ({"weight", "bias"} if config.arch == "gpt2" else {"weight", "bias", "A_log", "D"})
        assert all("norm" in n for n, p in model.named_parameters() if id(p) in without and n.endswith("weight"))


@OTHERS
def test_a_model_in_half_precision_still_decodes_as_it_reads(arch: str) -> None:
    model, ids = loud(arch), sequences(2, 20)
    full = model(ids)
    model.halve()
    kept = {name for name, weight in model.named_parameters() if weight.dtype == torch.float32}
    assert all(name.endswith(("A_log", "dt_proj.bias")) for name in kept) and bool(kept) == (arch == "mamba")
    whole, decoder, scale = model(ids).float(), Decoder(model, rows=2, length=20), float(full.std())
    for i in range(20):
        torch.testing.assert_close(decoder.feed(ids[:, i : i + 1]).float(), whole[:, i], atol=0.05 * scale, rtol=0.05)
    assert float((whole - full).abs().mean()) < 0.1 * scale


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("mamba.heads=4",), "no attention"),
        (("gpt2.heads=0",), "needs heads"),
        (("gpt2.arch=rnn",), "one of: llama, gpt2, mamba"),
        (("gpt2.heads=24",), "24 heads"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(given: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load((), [f"models.{key}" for key in given])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world(tmp_path_factory.mktemp("world"))


@OTHERS
def test_it_trains_and_a_resumed_run_is_the_undisturbed_one(arch: str, shards: Path, tmp_path: Path) -> None:
    shape = {"heads": 0, "mlp_hidden": 0} if arch == "mamba" else {}
    keys = {"arch": arch, **MODEL, **shape}
    words = [word for key, value in keys.items() for word in ("--set", f"models.tiny.{key}={value}")]
    short = {"steps": 4, "checkpoint_every": 2, "validate_every": 4, "frames": 2, "batch_tokens": 256}
    short |= {"learning_rate": 0.01, "warmup_steps": 0}
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    assert call([*command_line(shards, whole, **short), *words], whole).code == 0
    for stop in (["--stop-at", "2"], []):
        assert call([*command_line(shards, halves, *stop, **short), *words], halves).code == 0
    assert history(halves) == history(whole)
    assert same_state(halves, whole)
    loaded = load_model(halves)
    assert isinstance(loaded.model, {"gpt2": GPT2, "mamba": Mamba}[arch])
    features = loaded.model.features(sequences(1, 20), [0, 2])
    assert [tuple(x.shape) for x in features.values()] == [(1, 20, 32)] * 2
    lines = [line["loss"] for line in history(whole) if "loss" in line and "batch" in line]
    assert lines[-1] < lines[0]
