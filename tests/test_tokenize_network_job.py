"""A whole run with a tokenizer that has a network: what the dataset says of it, and which other runs may go on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import call, environment, write_image

from toto import Dataset
from toto.tokenizers import load


def encoder(path: Path, seed: int) -> Path:
    """A small dVAE encoder, as the package dall_e saves one."""
    import dall_e

    torch.manual_seed(seed)
    torch.save(dall_e.Encoder(n_hid=64, n_blk_per_group=1, vocab_size=512), path)
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("network-job")
    for i in range(3):
        write_image(folder / "pictures" / f"{i}.png", (64, 64), seed=i)
    encoder(folder / "encoder.pkl", 0)
    return folder


def run(world: Path, weights: Path | str, *more: str, **environment: str) -> tuple[int, str]:
    """Exit code and stderr of a run over the pictures."""
    config = world / "pipelines.yaml"
    dataset = f"layout: folder, root: {world / 'pictures'}, resolution: 32, min_frames: 1, tokenizer: small"
    config.write_text(
        f"tokenizers:\n  small: {{backend: dvae, weights: {weights}, trained_with: photographs of the web}}\n"
        f"datasets:\n  folder: {{{dataset}}}\n"
    )
    engine = () if "--workers" in more else ("--ray-address", "local")
    words = ("run", "folder", "--tokenizer", "small", *engine, "--out", world / "out", "--quiet")
    done = call("tokenize", *words, "--config", config, *more, XDG_CACHE_HOME=str(world / "cache"), **environment)
    return done.returncode, done.stderr


def test_a_run_records_its_weights_and_goes_on_with_the_same_ones_alone(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said = run(world, world / "encoder.pkl")
    assert code == 0, said
    info = json.loads((world / "out" / "dataset.json").read_text())
    spec = info["tokenizer"]
    assert (spec["name"], spec["weights"], spec["device"], spec["precision"]) == ("dvae", "encoder.pkl", "cpu", "fp32")
    assert info["made_by"]["precisions"] == ["fp32"] and info["made_by"]["flips"] == 0
    card = (world / "out" / "README.md").read_text()
    assert "trained with photographs of the web" in card and "made in fp32" in card
    monkeypatch.setenv("XDG_CACHE_HOME", str(world / "cache"))
    codes = load(spec).encode(np.zeros((1, 3, 32, 32), np.uint8))  # by the hash: no path is known any more
    spec_alone = (
        f"import sys; from toto.tokenizers import load; print(load({spec!r}).spec['id'], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", spec_alone], env=environment(), capture_output=True, text=True)
    assert done.stdout.split() == [spec["id"], "False"], done.stderr
    assert codes.shape == (1, 4, 4) and Dataset(str(world / "out")).row(0).codes.shape == (1, 4, 4)

    moved = tmp_path / "elsewhere.pkl"
    moved.write_bytes((world / "encoder.pkl").read_bytes())
    code, said = run(world, moved)
    assert code == 0 and json.loads((world / "out" / "dataset.json").read_text())["dataset_id"] == info["dataset_id"]

    code, said = run(world, encoder(tmp_path / "other.pkl", 1))
    assert code == 2 and "was planned with tokenizer dvae" in said and len(said.strip().splitlines()) == 1

    encoder(moved, 2)
    code, said = run(world, moved)
    assert code == 1 and "has changed: its sha256 was" in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize("actors", ["0", "1"])
def test_what_workers_under_ray_lack_is_said_once(world: Path, tmp_path: Path, actors: str) -> None:
    where = ("--out", str(tmp_path / "out"), "--workers", "2", "--tokenizer-actors", actors)
    in_bf16 = ("--set", "tokenizers.small.precision=bf16", "--set", "tokenizers.small.compile=on")
    code, said = run(world, world / "encoder.pkl", *where, *in_bf16, CXX=str(tmp_path / "none"), PATH="")
    assert code == 0, said
    assert said.count("no C++ compiler was found") == said.count("uncompiled") == 1
