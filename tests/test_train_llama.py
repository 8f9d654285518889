"""The model: the same numbers as transformers', losses in chunks, features of every layer, decoding piece by piece."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from toto.config import ModelConfig
from toto.errors import UsageError
from toto.train.models.decoder import Decoder, Mark
from toto.train.models.llama import Block, Llama

USED = 68  # 64 codes
CONFIG = ModelConfig(name="small", dim=48, layers=3, heads=4, mlp_hidden=80, rope_theta=500.0)


def sequences(rows: int = 2, length: int = 33, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, USED, (rows, length), generator=torch.Generator().manual_seed(seed))


def louder(model: Llama) -> Llama:
    """The model with weights ten times as large and gains that are not 1: every part of it shows in the logits."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(10 if weight.ndim > 1 else 1)
            weight.add_(torch.linspace(-0.3, 0.3, len(weight)) if weight.ndim == 1 else 0)
    return model


@pytest.fixture
def model() -> Llama:
    return louder(Llama(CONFIG, USED, seed=1))


def transformers_twin(model: Llama) -> Any:
    """The library's own Llama with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    c = model.config
    twin = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=model.used_ids,
            hidden_size=c.dim,
            intermediate_size=c.mlp_hidden,
            num_hidden_layers=c.layers,
            num_attention_heads=c.heads,
            rms_norm_eps=c.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
            tie_word_embeddings=True,
            max_position_embeddings=512,
        )
    )
    state = {"model.embed_tokens.weight": model.table.weight[: model.used_ids], "model.norm.weight": model.norm.weight}
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.mlp.gate_up.weight.chunk(2)
        names = {
            "input_layernorm": block.attention_norm.weight,
            "post_attention_layernorm": block.mlp_norm.weight,
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": block.attention.out.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": block.mlp.down.weight,
        }
        state |= {f"model.layers.{i}.{name}.weight": weight for name, weight in names.items()}
    missing, unexpected = twin.load_state_dict(state, strict=False)
    assert missing in ([], ["lm_head.weight"]) and not unexpected
    return twin.eval()


def test_logits_and_states_are_those_of_transformers(model: Llama) -> None:
    ids = sequences(length=129)
    with torch.no_grad():
        theirs = transformers_twin(model)(ids, output_hidden_states=True)
        ours = model(ids)
        states = model.features(ids, range(CONFIG.layers + 1))
    assert ours.dtype == torch.float32 and ours.shape == (2, 129, USED)
    assert ours.std() > 0.5, "logits too small to tell anything"
    torch.testing.assert_close(ours, theirs.logits, atol=1e-4, rtol=0)
    for layer in range(CONFIG.layers):
        torch.testing.assert_close(states[layer], theirs.hidden_states[layer], atol=1e-4, rtol=0)
    # transformers gives the last state after the final norm, we give it before
    torch.testing.assert_close(model.norm(states[CONFIG.layers]), theirs.hidden_states[-1], atol=1e-4, rtol=0)


def test_theta_is_heard(model: Llama) -> None:
    other = Llama(ModelConfig(**(vars(CONFIG) | {"rope_theta": 5e4})), USED, seed=None)
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(model(sequences()), other(sequences()), atol=1e-3)


def test_a_later_id_changes_nothing_before_it(model: Llama) -> None:
    ids, changed = sequences(), sequences()
    changed[:, 20] = 4 + (changed[:, 20] - 3) % 64
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize("chunk_tokens", [1, 7, 64, 10_000])
def test_losses_in_chunks_are_cross_entropy_of_the_logits(model: Llama, chunk_tokens: int) -> None:
    ids, targets = sequences(), sequences(seed=1)
    targets[0, :5] = -100
    whole = deepcopy(model)
    expected = F.cross_entropy(whole(ids).flatten(0, 1), targets.flatten(), reduction="none").view(2, 33)
    losses = model(ids, targets, chunk_tokens)
    assert losses.dtype == torch.float32 and (losses[0, :5] == 0).all()
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    weights = torch.linspace(0.1, 1, 66).view(2, 33)  # a loss of any weighting has the same gradients
    (losses * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_no_logits_are_kept_for_the_backward_pass() -> None:
    model, kept = Llama(CONFIG, 1028), []

    def look(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        model(sequences(), sequences(seed=1), 16)
    assert kept and max(shape[-1] for shape in kept) < 1028


def test_padded_rows_are_no_id_and_learn_nothing(model: Llama) -> None:
    padded = model.table.weight[USED:]
    assert model.table.weight.shape[0] == 128 and not padded.any()
    model(sequences(), sequences(seed=1)).sum().backward()
    assert model.table.weight.grad is not None
    assert not model.table.weight.grad[USED:].any() and model.table.weight.grad[:USED].any()


def test_checkpointed_blocks_give_the_same_gradients(model: Llama) -> None:
    lean = Llama(CONFIG, USED, seed=None, checkpoint_blocks=True)
    lean.load_state_dict(model.state_dict())
    for each in (model, lean):
        each(sequences(), sequences(seed=1)).mean().backward()
    for ours, theirs in zip(lean.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_features_stop_at_the_highest_layer(model: Llama) -> None:
    def must_not_run(*_: object) -> None:
        raise AssertionError("block 2 ran")

    model.blocks[2].forward = must_not_run  # type: ignore[assignment]
    states = model.features(sequences(), [2, 0])
    assert list(states) == [2, 0] and states[2].shape == (2, 33, 48)
    assert torch.equal(states[0], model.table(sequences()))


@pytest.mark.parametrize("layers", [[4], [-1], []])
def test_features_of_layers_that_are_not_there_are_refused(model: Llama, layers: list[int]) -> None:
    with pytest.raises(ValueError, match="a small has 0 to 3"):
        model.features(sequences(), layers)


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = Llama(CONFIG, USED, seed=3)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from"
    torch.manual_seed(6)
    again, other = Llama(CONFIG, USED, seed=3), Llama(CONFIG, USED, seed=4)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
        assert torch.equal(weight, other.state_dict()[name]) == name.endswith("norm.weight")


def test_initial_spread_is_the_documented_one() -> None:
    model = Llama(ModelConfig(name="wide", dim=256, layers=8, heads=4, mlp_hidden=512), 516, seed=0)
    spread = {name: float(weight.detach().std()) for name, weight in model.named_parameters() if weight.ndim > 1}
    spread["table.weight"] = float(model.table.weight[:516].detach().std())
    for name, std in spread.items():
        expected = 0.005 if name.endswith(("out.weight", "down.weight")) else 0.02  # 0.02 / sqrt(2 * 8) = 0.005
        assert std == pytest.approx(expected, rel=0.03), name


def test_autocast_keeps_logits_and_losses_in_fp32(model: Llama) -> None:
    exact = model(sequences())
    with torch.autocast("cpu", torch.bfloat16):
        logits, losses = model(sequences()), model(sequences(), sequences(seed=1), 16)
        states = model.features(sequences(), [0, 3])
    assert logits.dtype == losses.dtype == torch.float32
    assert states[3].dtype == torch.bfloat16
    assert F.cosine_similarity(logits.flatten(), exact.flatten(), dim=0) > 0.99
    losses.mean().backward()


def test_a_model_used_in_inference_mode_can_be_trained_afterwards(model: Llama) -> None:
    with torch.inference_mode():
        model(sequences())
    model(sequences(), sequences(seed=1)).mean().backward()


def test_heads_that_do_not_divide_the_width_are_named() -> None:
    with pytest.raises(UsageError, match=r"models\.odd: dim 48 .* heads 5"):
        Llama(ModelConfig(name="odd", dim=48, layers=1, heads=5, mlp_hidden=8), USED)


@settings(max_examples=15)
@given(pieces=st.lists(st.integers(1, 9), min_size=1, max_size=5), back=st.integers(0, 40))
def test_a_decoder_fed_in_any_pieces_gives_the_logits_of_the_whole(pieces: list[int], back: int) -> None:
    model, ids = louder(Llama(CONFIG, USED, seed=1)), sequences(3, sum(pieces))
    decoder, whole = Decoder(model, rows=3, length=45), model(ids)
    marks = [decoder.mark()]
    for piece in pieces:
        start = decoder.position
        logits = decoder.feed(ids[:, start : start + piece])
        torch.testing.assert_close(logits, whole[:, start + piece - 1], atol=1e-4, rtol=1e-4)
        marks.append(decoder.mark())
    decoder.rewind(marks[back % len(pieces)])
    torch.testing.assert_close(decoder.feed(ids[:, decoder.position :]), whole[:, -1], atol=1e-4, rtol=1e-4)


def test_a_decoder_refuses_more_than_it_has_room_for(model: Llama) -> None:
    decoder = Decoder(model, rows=2, length=8)
    decoder.feed(sequences(2, 6))
    with pytest.raises(ValueError, match="9 ids fed to a decoder of 8"):
        decoder.feed(sequences(2, 3))
    with pytest.raises(ValueError, match="position 7 of 6"):
        decoder.rewind(Mark(7, []))


def test_compiled_blocks_keep_the_numbers_and_the_names(model: Llama) -> None:
    names, eager = list(model.state_dict()), deepcopy(model)
    model.compile_blocks()
    losses = []
    for each in (model, eager):
        try:
            losses.append(each(sequences(), sequences(seed=1)))
        except torch._inductor.exc.InductorError as error:  # a machine without a C++ compiler
            pytest.skip(f"torch.compile needs a C++ compiler here: {str(error).splitlines()[0]}")
        losses[-1].sum().backward()
    torch.testing.assert_close(*losses, atol=1e-5, rtol=1e-4)
    for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == names
