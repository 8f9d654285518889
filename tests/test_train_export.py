"""Exported models: transformers loads them with the same logits and the same greedy tokens; a wrong one is refused."""

import errno
import json
import logging
import resource
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from train_toy import trained, world
from transformers import AutoModelForCausalLM

from toto.config import ModelConfig
from toto.errors import UsageError, UserError
from toto.train.cli import cli
from toto.train.export import folder as exported
from toto.train.export.folder import export
from toto.train.generation.rollout import Rollout
from toto.train.generation.sampling import Sampling
from toto.train.load import Loaded, load_model
from toto.train.models import make_model, packed

USED = 68
SHAPES = {
    "llama": ModelConfig(name="small", dim=48, layers=2, heads=4, mlp_hidden=80, rope_theta=500.0),
    "gpt2": ModelConfig(name="small", arch="gpt2", dim=48, layers=2, heads=4, mlp_hidden=80),
    "mamba": ModelConfig(name="small", arch="mamba", dim=40, layers=2, expand=3, states=5),
}


def loaded(arch: str) -> Loaded:
    """A model whose every weight shows in the logits."""
    config = SHAPES[arch]
    model = make_model(config, USED, seed=1).requires_grad_(False).eval()
    noise = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.add_(0.2 * torch.randn(weight.shape, generator=noise))
        elif weight.ndim == 2 and model.decays(name):
            weight.mul_(8)
    return Loaded(
        model=model,
        config=config,
        used_ids=USED,
        tokenizer={"name": "dct", "id": "0" * 16, "vocab_size": USED - 4, "patch": 8},
        context=64,
        frames=4,
        stride=4,
        grid=(4, 4),
        step=12,
        path=Path("nowhere"),
        id="f" * 16,
        recipe={"parts": [{"name": "demo:video"}]},
    )


@pytest.mark.parametrize("arch", sorted(SHAPES))
def test_transformers_gives_the_logits_of_the_checkpoint(arch: str, tmp_path: Path) -> None:
    source = loaded(arch)
    parity = export(source, tmp_path / "out")
    assert parity is not None and parity.holds and parity.logit_spread > 0.5
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, local_files_only=True).eval()
    ids = torch.randint(4, USED, (3, 40), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, source.model(ids), atol=5e-4, rtol=0)
    asked = theirs.generation_config
    assert (theirs.config.vocab_size, asked.bos_token_id, asked.eos_token_id, asked.pad_token_id) == (USED, 1, 2, 0)
    said = json.loads((tmp_path / "out" / "report.json").read_text())["parity"]
    assert said["holds"] and said["greedy_equal"] == said["greedy_tokens"] > 10
    facts = json.loads((tmp_path / "out" / "toto.json").read_text())
    assert (facts["checkpoint"], facts["grid"], facts["tokenizer"]["id"]) == (source.id, [4, 4], "0" * 16)


@pytest.mark.parametrize("arch", sorted(SHAPES))
def test_a_greedy_rollout_is_what_transformers_generates(arch: str, tmp_path: Path) -> None:
    source = loaded(arch)
    export(source, tmp_path / "out", check=False)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32, local_files_only=True).eval()
    prompt = torch.randint(USED - 4, (3, 1, 16), generator=torch.Generator().manual_seed(5))
    ids = torch.nn.functional.pad(prompt.flatten(1) + 4, (1, 0), value=1)
    asked = {"max_new_tokens": 48, "do_sample": False, "eos_token_id": None, "suppress_tokens": [0, 1, 2, 3]}
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **asked)[:, 1:] - 4
    rollout = Rollout(source.model, 1, 4, "free", Sampling(greedy=True))
    for packs in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packed, "SMALL", 0 if packs else 1 << 30)
            with packed.packed(source.model) as done:
                assert done == (packs and packed.least_packed_rows(source.model) is not None)
                found = rollout(prompt, 1, torch.zeros(3, 4, 16, dtype=torch.float64)).codes
        assert torch.equal(found.flatten(1), expected)


def test_an_export_that_is_not_the_checkpoint_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(model: object, context: int) -> object:
        layout = right(model, context)
        name = "model.layers.1.mlp.up_proj.weight"
        layout.tensors[name] = layout.tensors[name.replace("up", "gate")].clone()
        return layout

    right = exported.layout_of
    monkeypatch.setattr(exported, "layout_of", swapped)
    with pytest.raises(UserError, match="other logits than the checkpoint"):
        export(loaded("llama"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_whoever_may_read_one_file_may_read_all(tmp_path: Path) -> None:
    export(loaded("llama"), tmp_path / "out", check=False)
    (tmp_path / "mine").touch()
    expected = (tmp_path / "mine").stat().st_mode
    assert {
        path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir() if path.stat().st_mode != expected
    } == {}


def test_transformers_does_not_talk_about_its_kernels(tmp_path: Path) -> None:
    said: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = said.append  # type: ignore[method-assign]
    logging.Logger.warning_once.cache_clear()  # type: ignore[attr-defined]  # what an earlier test was told, too
    logging.getLogger("transformers").addHandler(handler)
    try:
        export(loaded("mamba"), tmp_path / "out")
    finally:
        logging.getLogger("transformers").removeHandler(handler)
    assert [record.getMessage() for record in said] == []


def test_large_models_are_split_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exported, "SHARD_BYTES", 40_000)
    parity = export(loaded("llama"), tmp_path / "out")
    assert parity is not None and parity.holds
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"


def test_bf16_weights_are_the_rounded_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = loaded("llama")
    monkeypatch.setattr(exported, "SHARD_BYTES", 160_000)  # in fp32, which is compared, they take more files
    export(source, tmp_path / "out", "bf16", check=True)
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto", local_files_only=True)
    table = theirs.get_input_embeddings().weight
    assert table.dtype == torch.bfloat16 and torch.equal(table, source.model.table.weight[:USED].bfloat16())


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        export(loaded("llama"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_trained_run_is_exported_by_the_command(tmp_path: Path) -> None:
    run = trained(world(tmp_path / "world"), tmp_path / "run", steps=4, checkpoint_every=4, validate_every=0)
    out = tmp_path / "hub"
    done = CliRunner().invoke(cli, ["export", "--ckpt", str(run), "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["parity"]["holds"] and "greedy tokens are equal" in done.stdout
    source = load_model(run)
    assert source.tokenizer["id"] in (out / "README.md").read_text()
    theirs = AutoModelForCausalLM.from_pretrained(out, local_files_only=True)
    assert sum(p.numel() for p in theirs.parameters()) == said_parameters(out, source)


def said_parameters(out: Path, source: Loaded) -> int:
    padded = len(source.model.table.weight) - source.used_ids
    return sum(p.numel() for p in source.model.parameters()) - padded * source.config.dim


def test_a_disk_without_room_is_told_as_such_and_nothing_is_left(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # of a file, in bytes: the weights are larger
    try:
        with pytest.raises(OSError) as full:
            export(loaded("gpt2"), tmp_path / "out", check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.errno == errno.EFBIG and full.value.filename == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
