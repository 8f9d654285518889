"""A dataset on another machine: its pictures come back by the hashes it records, never from a file of the same name."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import save_file

from toto.config import DatasetConfig, TokenizerConfig, load
from toto.errors import UsageError, UserError
from toto.shards.look import clips
from toto.tokenize import cost, weights_child
from toto.tokenize.calibrate import Rates
from toto.tokenize.cli import cli
from toto.tokenize.job import Job, make_job
from toto.tokenize.tokenizers.autoencoder_net import AutoencoderDecoder, AutoencoderEncoder, AutoencoderSize
from toto.tokenize.tokenizers.dvae_net import DVAEDecoder, DVAEEncoder, DVAESize
from toto.tokenize.weights_convert import stored, write_converted
from toto.tokenizers import load as load_tokenizer

SMALL = DVAESize(hidden=8, blocks=1, vocab_size=64, first=8)
CODES = np.arange(8).reshape(2, 2, 2)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and an empty working directory; weights are converted here, a child takes seconds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights_child, "convert", write_converted)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with a dVAE's two halves and a VQGAN."""
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(DVAEEncoder(SMALL).state_dict(), folder / "encoder.pkl")
    torch.save(DVAEDecoder(SMALL).state_dict(), folder / "decoder.pkl")
    size = AutoencoderSize(32, (32, 32), 1, frozenset(), 4, 4, 4)
    halves = {**AutoencoderEncoder(size).state_dict(), **AutoencoderDecoder(size).state_dict()}
    save_file({**halves, "quantize.embedding.weight": torch.randn(64, 4)}, folder / "vqgan.safetensors")
    (folder / "model.yaml").write_text(
        "model:\n  target: taming.models.vqgan.VQModel\n  params: {embed_dim: 4, n_embed: 64}\n"
    )
    return folder


def job(entry: TokenizerConfig) -> Job:
    return make_job(DatasetConfig("x", "folder", "/x", resolution=32), entry, "out")


def as_stored(entry: TokenizerConfig) -> dict[str, object]:
    """The tokenizer as dataset.json has it."""
    return json.loads(json.dumps(job(entry).tokenizer))


def dvae(weights: Path, decoder: str = "decoder.pkl") -> TokenizerConfig:
    return TokenizerConfig("mine", "dvae", weights=str(weights / "encoder.pkl"), decoder=str(weights / decoder))


def move_away(weights: Path) -> Path:
    return weights.rename(weights.with_name("moved"))


def test_a_decoder_named_by_a_path_is_found_by_its_hash(weights: Path) -> None:
    spec = as_stored(dvae(weights))
    assert spec["decoder"] == "decoder.pkl" and len(str(spec["decoder_sha256"])) == 64
    assert spec["id"] == as_stored(TokenizerConfig("mine", "dvae", weights=str(weights / "encoder.pkl")))["id"]
    move_away(weights)
    assert clips.decoder(spec)(CODES).shape == (2, 16, 16, 3)


def test_a_file_of_the_same_name_here_is_not_used(weights: Path, machine: Path) -> None:
    spec = as_stored(dvae(weights))
    other = move_away(weights) / "decoder.pkl"
    torch.save(DVAEDecoder(SMALL).state_dict(), "decoder.pkl")
    os.environ["XDG_CACHE_HOME"] = str(machine / "another-cache")
    stored("dvae-encoder", str(other.with_name("encoder.pkl")), None)
    with pytest.raises(UserError, match=r"weights with sha256 .* are not in the cache here; name their file"):
        load_tokenizer(spec).decode(CODES)
    del spec["decoder_sha256"]
    with pytest.raises(UsageError, match="its decoder is not known here"):
        load_tokenizer(spec).decode(CODES)


def test_a_decoder_that_came_later_is_looked_up_beside_its_encoder_in_the_configuration(weights: Path) -> None:
    away = weights / "decoder.pkl"
    data = away.read_bytes()
    away.unlink()
    spec = as_stored(dvae(weights))
    assert "decoder_sha256" not in spec
    away.write_bytes(data)
    names = {"weights": str(weights / "encoder.pkl"), "decoder": str(away)}
    Path("pipelines.yaml").write_text(yaml.safe_dump({"tokenizers": {"mine": {"backend": "dvae", **names}}}))
    assert load_tokenizer(spec).decode(CODES).shape == (2, 3, 16, 16)


def test_tamings_yaml_is_held_against_the_weights_when_planning_and_never_again(weights: Path) -> None:
    names = {"weights": str(weights / "vqgan.safetensors"), "model_config": str(weights / "model.yaml")}
    planned = job(TokenizerConfig("mine", "vqgan", **names))
    spec = json.loads(json.dumps(planned.tokenizer))
    (weights / "model.yaml").write_text("model: {target: other}\n")
    with pytest.raises(UsageError, match="only taming's VQModel"):
        job(TokenizerConfig("mine", "vqgan", **names))
    move_away(weights)
    assert load_tokenizer(spec).decode(CODES).shape == (2, 3, 4, 4)
    assert planned.make_tokenizer().encode(np.zeros((1, 3, 32, 32), np.uint8)).shape == (1, 16, 16)


@pytest.mark.parametrize("spec", [{"name": "dct", "vocab_size": 64, "luma_coefficients": 3, "seed": 0}, None])
def test_what_is_no_code_is_refused_and_no_pictures_are_none(weights: Path, spec: dict[str, object] | None) -> None:
    tokenizer = load_tokenizer(spec or as_stored(dvae(weights)))
    for wrong in (-1, 64):
        with pytest.raises(ValueError, match="codes are 0 … 63"):
            tokenizer.decode(np.full((1, 2, 2), wrong))
    assert tokenizer.encode(np.empty((0, 3, 16, 24), np.uint8)).shape == (0, 2, 3)
    assert tokenizer.decode(np.empty((0, 2, 3), int)).shape == (0, 3, 16, 24)


@pytest.mark.parametrize("name", ["dvae", "vqgan-1k", "vqgan-16k", "sdvae"])
def test_a_network_is_planned_before_its_weights_are_here(name: str, machine: Path) -> None:
    entry = load().tokenizer(name)
    planned = make_job(DatasetConfig("x", "folder", "/x"), entry, "out", untrained=True)
    assert planned.is_untrained and planned.tokenizer["vocab_size"] == entry.vocab_size
    assert planned.cells == (64 if name.startswith("vqgan") else 256)
    assert planned.make_tokenizer().vocab_size == entry.vocab_size
    assert not list(machine.glob("cache/**/*")), "nothing is fetched or written"


def test_a_plan_says_that_its_network_has_random_weights(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "sample_sources", lambda *_: [])
    monkeypatch.setattr(cost, "calibrate", lambda *_: Rates(100.0, 10.0, "cpu", 7e10, None))
    done = CliRunner().invoke(cli, ["plan", "k600", "--published", "--tokenizer", "dvae", "--json"])
    assert done.exception is None and "dvae's weights are not here: its rate is that of random ones" in done.stdout
    planned = json.loads(done.stdout.splitlines()[-1])
    assert planned["untrained"] and planned["encode_gpu_hours"] > 0 and not list(machine.glob("cache/**/*"))


def test_weights_that_are_here_are_planned_with(weights: Path) -> None:
    planned = make_job(DatasetConfig("x", "folder", "/x"), dvae(weights), "out", untrained=True)
    assert not planned.is_untrained and planned.tokenizer["vocab_size"] == 64


def test_random_weights_take_the_arithmetic_of_the_official_size(machine: Path) -> None:
    planned = make_job(DatasetConfig("x", "folder", "/x"), load().tokenizer("dvae"), "out", untrained=True)
    assert planned.make_tokenizer().flops(128) == pytest.approx(68.1e9, rel=0.02)  # type: ignore[attr-defined]


def test_a_gpu_that_is_not_here_is_said_before_a_plan_is_written(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (weights / "videos").mkdir()
    entry = {"backend": "dvae", "weights": str(weights / "encoder.pkl"), "device": "cuda"}
    dataset = {"layout": "folder", "root": str(weights / "videos"), "tokenizer": "mine"}
    Path("pipelines.yaml").write_text(yaml.safe_dump({"tokenizers": {"mine": entry}, "datasets": {"mine": dataset}}))
    for engine in ("local", "ray"):
        done = CliRunner().invoke(cli, ["run", "mine", "--out", "out", "--ray-address", engine])
        assert isinstance(done.exception, UsageError) and "torch finds no GPU here" in str(done.exception)
    assert not Path("out").exists()
