"""The embedded tokenizer: exact, independent of neighbours, decodes to what a person recognises."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import environment, run_arguments, write_image
from hypothesis import given, settings
from hypothesis import strategies as st

from toto import Dataset
from toto.config import TokenizerConfig
from toto.config import load as load_pipelines
from toto.errors import UsageError, UserError
from toto.shards import ids
from toto.shards.store import LocalStore, open_store
from toto.shards.verify import verify
from toto.tokenize import canary
from toto.tokenize.cli import cli
from toto.tokenize.encoder import BATCH, LocalEncoder, encode_padded
from toto.tokenize.tokenizer_spec import portable, tokenizer_spec
from toto.tokenize.tokenizers.dct import DCT
from toto.tokenizers import load


@pytest.fixture(scope="module")
def tokenizer() -> DCT:
    return DCT(8192)


def pictures(n: int, seed: int = 0, side: int = 32) -> np.ndarray:
    """uint8 [n, side, side, 3] with structure at several scales."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (n, 4, 4, 3)).repeat(side // 4, 1).repeat(side // 4, 2)
    return np.clip(coarse + rng.integers(-30, 30, (n, side, side, 3)), 0, 255).astype(np.uint8)


@settings(max_examples=20)
@given(st.integers(1, BATCH), st.integers(0, 1000))
def test_neighbours_and_padding_never_change_a_code(n: int, seed: int) -> None:
    tokenizer = DCT(512)
    frames = pictures(n, seed)
    together = encode_padded(tokenizer, frames)
    alone = np.concatenate([tokenizer.encode(frame[None].transpose(0, 3, 1, 2)) for frame in frames])
    assert (together == alone).all() and together.dtype == np.int32 and together.shape == (n, 4, 4)


def test_codes_are_the_nearest_by_brute_force(tokenizer: DCT) -> None:
    frames = pictures(4).transpose(0, 3, 1, 2)
    codes = tokenizer.encode(frames).reshape(-1)
    patches = frames.reshape(4, 3, 4, 8, 4, 8).transpose(0, 2, 4, 3, 5, 1).reshape(-1, 192)
    vectors = (patches.astype(np.float64) - 128) @ tokenizer._basis
    distances = np.linalg.norm(vectors[:, None] - tokenizer._codebook[None], axis=2)
    best, chosen = distances.min(1), distances[np.arange(len(codes)), codes]
    assert np.abs(best - chosen).max() < 0.05  # the basis is rounded to 2^-16


def test_threads_do_not_change_a_code() -> None:
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); from toto.tokenize.canary import pictures;"
        "from toto.tokenize.encoder import encode_padded; from toto.tokenize.tokenizers.dct import DCT;"
        "print(hashlib.sha256(encode_padded(DCT(8192), pictures(64)).tobytes()).hexdigest())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment(OMP_NUM_THREADS=str(n), OPENBLAS_NUM_THREADS=str(n)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in (1, 2, os.cpu_count() or 1)
    }
    assert len(hashes) == 1


def test_decoded_pictures_are_recognisable(tokenizer: DCT) -> None:
    smooth = np.stack([*np.meshgrid(np.arange(64) * 3, np.arange(64) * 2), np.full((64, 64), 90)])
    decoded = tokenizer.decode(tokenizer.encode(smooth[None].astype(np.uint8)))[0]
    mse = ((decoded.astype(float) - smooth) ** 2).mean()
    assert 10 * np.log10(255**2 / mse) > 20


def test_the_spec_remakes_the_same_tokenizer(tokenizer: DCT) -> None:
    again = load(tokenizer.spec)
    assert again.spec == tokenizer.spec and (again._codebook == tokenizer._codebook).all()  # type: ignore[attr-defined]
    assert DCT(8192, seed=1).spec["id"] != tokenizer.spec["id"] != DCT(4096).spec["id"]


def test_the_codebook_is_frozen(tokenizer: DCT) -> None:
    expected = "06bdbef64ed5b5650e31fb71b557b8ff599966147796b3a16c1a679a4b875f20"
    assert tokenizer.spec["codebook_sha256"] == expected
    with pytest.raises(UsageError, match="hash differs"):
        load({**tokenizer.spec, "codebook_sha256": "0" * 64})


def test_an_unknown_tokenizer_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown tokenizer 'dvea'; did you mean 'dvae'\?\nknown: dct, dvae, none"):
        load({"name": "dvea"})


def test_dct_never_imports_torch() -> None:
    code = (
        "import sys, numpy as np; from toto.tokenizers import load; import toto.tokenize.weights_cli;"
        "tokenizer = load({'name': 'dct', 'vocab_size': 512, 'luma_coefficients': 3, 'seed': 0});"
        "tokenizer.decode(tokenizer.encode(np.zeros((1, 3, 8, 8), np.uint8)));"
        "import toto.tokenize.tokenizers.dvae, toto.tokenize.tokenizers.vqgan; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize(
    ("uri", "stored"),
    [
        ("/home/me/weights/encoder.pkl", "encoder.pkl"),
        ("https://host.org/f/140747/?dl=1", "https://host.org/f/140747/?dl=1"),
        ("https://me:secret@host.org/encoder.pkl", "https://host.org/encoder.pkl"),
        ("s3://bucket/encoder.pkl?X-Amz-Signature=abc&X-Amz-Credential=def", "s3://bucket/encoder.pkl"),
    ],
)
def test_a_dataset_names_weights_without_secrets_and_folders(uri: str, stored: str) -> None:
    assert portable(uri) == stored


def test_settings_of_an_entry_reach_the_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELS", "/models")
    entry = TokenizerConfig("mine", "dvae", weights="${MODELS}/encoder.pkl", weights_sha256="ab", device="cpu")
    assert tokenizer_spec(entry) == {
        "name": "dvae",
        "weights": "/models/encoder.pkl",
        "weights_sha256": "ab",
        "device": "cpu",
        "precision": "fp32",
        "compile": "auto",
    }
    assert tokenizer_spec(replace(entry, device="cuda"))["precision"] == "bf16"
    plug_in = tokenizer_spec(TokenizerConfig("mine", "grey", options={"levels": 3}))
    assert (plug_in["name"], plug_in["options"]) == ("grey", {"levels": 3})
    assert tokenizer_spec(TokenizerConfig("dct", "dct"))["vocab_size"] == 8192


@pytest.mark.parametrize(
    ("backend", "key", "value"),
    [
        ("dct", "device", "cuda"),
        ("dct", "precision", "bf16"),
        ("dct", "weights", "x.pkl"),
        ("none", "vocab_size", 9),
        ("dvae", "seed", 1),
        ("vqgan", "decoder", "x.pkl"),
        ("sdvae", "options", {"a": 1}),
        ("grey", "luma_coefficients", 4),
    ],
)
def test_a_key_that_a_tokenizer_does_not_have_is_refused_by_its_name(backend: str, key: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"tokenizers\.mine\.{key}: backend {backend} has no such key"):
        tokenizer_spec(replace(TokenizerConfig("mine", backend), **{key: value}))  # type: ignore[arg-type]


def test_every_entry_that_comes_with_the_package_has_its_backends_keys_alone() -> None:
    pipelines = load_pipelines(("pipelines.yaml",))
    for name in pipelines.tokenizers:
        assert tokenizer_spec(pipelines.tokenizer(name))["name"] == pipelines.tokenizers[name].backend


def test_none_keeps_no_codes() -> None:
    tokenizer = load({"name": "none"})
    assert tokenizer.encode(np.zeros((3, 3, 8, 8), np.uint8)).shape == (3, 0, 0)
    with pytest.raises(UsageError, match="pixels"):
        tokenizer.decode(np.zeros((1, 0, 0), int))


def test_special_ids_are_never_codes(tokenizer: DCT) -> None:
    codes = np.array([[[0, 1], [2, 8191]]])
    row = ids.to_ids(codes, ids.KIND_VIDEO, ids.id_dtype(8192))
    assert row.tolist() == [1, 4, 5, 6, 8195, 2] and (ids.to_codes(row, 2, 2) == codes).all()
    assert ids.model_vocab(8192) == 8320 and ids.id_dtype(65533) == np.uint32 and ids.id_dtype(65532) == np.uint16


def test_a_drifted_actor_is_refused_and_a_small_drift_is_counted(tokenizer: DCT, tmp_path) -> None:
    store = LocalStore(tmp_path)
    assert canary.check(store, tokenizer, 128)["differs"] == 0.0
    again = canary.check(store, tokenizer, 128)
    assert again["differs"] == 0.0 and LocalEncoder(tokenizer, again).canary == again

    class Drifted(DCT):
        share = 0.004

        def encode(self, frames: np.ndarray) -> np.ndarray:
            codes = super().encode(frames)
            flat = codes.reshape(-1)
            flat[: int(len(flat) * self.share)] ^= 1
            return codes

    drifted = Drifted(8192)
    assert 0.003 < canary.check(store, drifted, 128)["differs"] <= 0.004
    drifted.share = 0.02
    with pytest.raises(UserError, match="other codes than the dataset's first one"):
        canary.check(store, drifted, 128)


def test_a_vocabulary_of_more_than_16_bits_comes_back_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "pictures" / "0.png", (128, 128))
    words = ["run", *run_arguments(tmp_path / "pictures", tmp_path / "out"), "--ray-address", "local"]
    wanted = ("tokenizers.dct.vocab_size=100000", "datasets.folder.resolution=128", "datasets.folder.keep_pixels=128")
    sets = [word for each in wanted for word in ("--set", each)]
    cli.main([*words, "--tokenizer", "dct", *sets], standalone_mode=False)
    dataset = Dataset(tmp_path / "out")
    assert verify(open_store(tmp_path / "out"), deep=True).problems == []
    (row,) = dataset.rows()
    tokenizer = load(dataset.tokenizer)
    assert row.tokens.dtype == np.uint32 and row.codes.max() > 65_535
    assert (row.codes == tokenizer.encode(row.pixels.transpose(0, 3, 1, 2))).all()
    assert tokenizer.decode(row.codes).shape == (1, 3, 128, 128)
