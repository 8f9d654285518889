"""dvae, vqgan, sdvae: our networks give the ids of dall_e, taming and diffusers, on weights that use the codebook."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from calibrated_weights import calibrate_dvae, calibrate_sdvae, calibrate_vqgan, margins, pictures

from toto.errors import UsageError, UserError
from toto.shards.store import LocalStore
from toto.tokenize import canary, weights_child
from toto.tokenize.canary import precision_facts
from toto.tokenize.tokenizers.autoencoder_arithmetic import DIFFUSERS, TAMING
from toto.tokenize.tokenizers.autoencoder_net import load_autoencoder_encoder
from toto.tokenize.tokenizers.codebook import gaussian_codes
from toto.tokenize.tokenizers.running import Placement, Running
from toto.tokenize.weights_convert import AUTOENCODER, stored, write_converted
from toto.tokenizers import load

NEAR_TIE = 1e-4  # of a reference's best two scores: below it, fp32 rounding decides
SIDE = 128
DDCONFIG: dict[str, Any] = {
    "double_z": False,
    "z_channels": 64,
    "resolution": SIDE,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 1, 2, 2, 4],  # as the official one
    "num_res_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}


@dataclass
class Reference:
    """A small network of another package, what it makes of test pictures, and where its weights were saved."""

    spec: dict[str, Any]
    images: np.ndarray  # uint8 [n, 3, SIDE, SIDE]
    scores: torch.Tensor  # [n h w, codes], the best one is the code
    network: Any
    latents: list[torch.Tensor]  # of one picture each, as autoencoders give them

    @property
    def codes(self) -> np.ndarray:
        return self.scores.argmax(1).numpy()


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of weights and their cache; they are converted here, a child takes seconds."""
    folder = tmp_path_factory.mktemp("networks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(weights_child, "convert", write_converted)
        yield folder


@pytest.fixture(scope="module")
def photos(request: pytest.FixtureRequest) -> Path | None:
    """The folder of real pictures, or None: generated ones do as well."""
    try:
        return request.getfixturevalue("media")
    except pytest.skip.Exception:
        return None


def unit(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float() / 255


def flat(maps: torch.Tensor) -> torch.Tensor:
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@pytest.fixture(scope="module")
@torch.no_grad()
def dvae(folder: Path, photos: Path | None) -> Reference:
    import dall_e

    torch.manual_seed(0)
    encoder, decoder = dall_e.Encoder(n_hid=32, n_blk_per_group=1), dall_e.Decoder(n_hid=32, n_blk_per_group=1)
    calibrate_dvae(encoder, pictures(36, SIDE, photos))
    torch.save(encoder, folder / "encoder.pkl")  # whole pickled modules, as OpenAI's files are
    torch.save(decoder, folder / "decoder.pkl")
    images = pictures(44, SIDE, photos, seed=1)
    scores = torch.cat([flat(encoder(dall_e.map_pixels(unit(images[i : i + 4])))) for i in range(0, 44, 4)])
    spec = {"name": "dvae", "weights": str(folder / "encoder.pkl"), "decoder": str(folder / "decoder.pkl")}
    return Reference(spec, images, scores, decoder, [])


@pytest.fixture(scope="module")
@torch.no_grad()
def vqgan(folder: Path, photos: Path | None) -> Reference:
    from taming.modules.diffusionmodules.model import Decoder, Encoder
    from taming.modules.vqvae.quantize import VectorQuantizer2
    from torch import nn

    torch.manual_seed(0)
    model = nn.ModuleDict(
        {
            "encoder": Encoder(**DDCONFIG),
            "decoder": Decoder(**DDCONFIG),
            "quant_conv": nn.Conv2d(64, 48, 1),
            "post_quant_conv": nn.Conv2d(48, 64, 1),
            "quantize": VectorQuantizer2(1024, 48, beta=0.25),
        }
    ).eval()
    codebook = model["quantize"].embedding.weight.data
    calibrate_vqgan(model["encoder"], model["quant_conv"], codebook, pictures(32, SIDE, photos))
    save_lightning(folder / "last.ckpt", {**model.state_dict(), "loss.discriminator.weight": torch.zeros(3)})
    images = pictures(48, SIDE, photos, seed=1)
    latents = [model["quant_conv"](model["encoder"](unit(picture[None]) * 2 - 1)) for picture in images]
    z = torch.cat([flat(one) for one in latents])
    distances = z.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * z @ codebook.t()
    return Reference({"name": "vqgan", "weights": str(folder / "last.ckpt")}, images, -distances, model, latents)


def save_lightning(path: Path, state: dict[str, torch.Tensor]) -> None:
    """A checkpoint as Lightning 1 writes it: callbacks keyed by their class, objects in its state."""
    names = ["pytorch_lightning", "pytorch_lightning.callbacks", "pytorch_lightning.callbacks.model_checkpoint"]
    module = ModuleType(names[-1])
    callback = type("ModelCheckpoint", (), {"__module__": names[-1]})
    module.ModelCheckpoint = callback  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, module)
        best = callback()
        best.score = torch.tensor(0.5)
        kept = {callback: {"best_model_score": torch.tensor(0.5), "best": best}}
        torch.save({"epoch": 3, "global_step": 7, "callbacks": kept, "state_dict": state}, path)


@pytest.fixture(scope="module")
@torch.no_grad()
def sdvae(folder: Path, photos: Path | None) -> Reference:
    with pytest.MonkeyPatch.context() as patch:
        for package in ("transformers", "accelerate", "peft"):  # which it would load for its pipelines
            patch.setitem(sys.modules, package, None)
        from diffusers import AutoencoderKL

    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=1,
        latent_channels=4,
        sample_size=SIDE,
    ).eval()
    calibrate_sdvae(model, pictures(8, SIDE, photos))
    model.save_pretrained(folder / "sd-vae")
    images = pictures(8, SIDE, photos, seed=1)
    latents = [model.encode(unit(picture[None]) * 2 - 1).latent_dist for picture in images]
    modes = torch.cat([flat(one.mode() * 0.18215) for one in latents]).double()
    codes, in_float64 = torch.from_numpy(gaussian_codes(32_768, 4, 0)), "donot_use_mm_for_euclid_dist"
    scores = torch.cat([-torch.cdist(part, codes, compute_mode=in_float64).square() for part in modes.split(256)])
    parameters = [one.parameters for one in latents]
    return Reference({"name": "sdvae", "weights": str(folder / "sd-vae")}, images, scores, model, parameters)


@pytest.mark.parametrize(("name", "wanted"), [("dvae", 4000), ("vqgan", 600), ("sdvae", 1000)])
def test_ids_are_those_of_the_reference(name: str, wanted: int, request: pytest.FixtureRequest) -> None:
    reference: Reference = request.getfixturevalue(name)
    tokenizer = load(reference.spec)
    found = tokenizer.encode(reference.images).reshape(-1)
    near = (margins(reference.scores) <= NEAR_TIE).numpy()
    used, differ = len(np.unique(reference.codes)), found != reference.codes
    print(
        f"{name}: {used:,} of {tokenizer.vocab_size:,} codes used; {len(found):,} ids, {near.sum()} near-ties, ", end=""
    )
    print(f"{differ.sum()} differ")
    assert used >= wanted and not (differ & ~near).any()
    assert found.dtype == np.int32 and tokenizer.spec["vocab_size"] == reference.scores.shape[1]


@pytest.mark.parametrize(("name", "arithmetic"), [("vqgan", TAMING), ("sdvae", DIFFUSERS)])
def test_autoencoders_give_the_bits_of_the_reference(
    name: str, arithmetic: Any, folder: Path, request: pytest.FixtureRequest
) -> None:
    reference: Reference = request.getfixturevalue(name)
    file = {"vqgan": "last.ckpt", "sdvae": "sd-vae/diffusion_pytorch_model.safetensors"}[name]
    net = load_autoencoder_encoder(stored(name, str(folder / file), None).tensors(*AUTOENCODER), arithmetic)
    found: list[torch.Tensor] = []

    def kept(latents: torch.Tensor) -> np.ndarray:
        found.append(latents)
        return np.zeros((1, 1, 1), int)

    Running(net, Placement("cpu", "fp32")).encode(reference.images, kept)
    assert len(found) == len(reference.latents)
    for ours, theirs in zip(found, reference.latents, strict=True):
        assert torch.equal(ours, theirs)


def test_vqgan_ids_are_tamings_at_near_ties_too(vqgan: Reference) -> None:
    wanted = [vqgan.network["quantize"](latents)[2][2].numpy() for latents in vqgan.latents]
    assert (load(vqgan.spec).encode(vqgan.images).reshape(-1) == np.concatenate(wanted)).all()


def test_sdvae_ids_are_the_nearest_of_diffusers_modes(sdvae: Reference) -> None:
    assert (load(sdvae.spec).encode(sdvae.images).reshape(-1) == sdvae.codes).all()


@pytest.mark.parametrize("name", ["dvae", "vqgan", "sdvae"])
def test_neighbours_threads_and_callers_change_nothing(name: str, request: pytest.FixtureRequest) -> None:
    reference: Reference = request.getfixturevalue(name)
    tokenizer, images = load(reference.spec), reference.images[:4]
    before = torch.get_num_threads()
    together = tokenizer.encode(images)
    torch.set_num_threads(3)
    try:
        shuffled = tokenizer.encode(np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)[::-1])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    alone = np.concatenate([load(reference.spec).encode(image[None]) for image in images[:2]])
    assert (together == shuffled[::-1]).all() and (together[:2] == alone).all() and tokenizer.batch is None


@pytest.mark.parametrize("name", ["dvae", "vqgan", "sdvae"])
def test_pictures_come_back_as_the_reference_decodes_them(name: str, request: pytest.FixtureRequest) -> None:
    reference: Reference = request.getfixturevalue(name)
    tokenizer = load(reference.spec)
    codes = tokenizer.encode(reference.images[:2])
    decoded = tokenizer.decode(codes)
    wanted = decode_by_reference(name, reference.network, torch.from_numpy(codes).long())
    assert decoded.shape == (2, 3, SIDE, SIDE) and decoded.dtype == np.uint8 and decoded.std() > 0
    assert np.abs(decoded.astype(int) - (wanted * 255).round().numpy().astype(int)).max() <= 1


def decode_by_reference(name: str, network: Any, codes: torch.Tensor) -> torch.Tensor:
    """Pixels of [0, 1] as the packages' own examples get them."""
    if name == "dvae":
        import dall_e

        one_hot = torch.nn.functional.one_hot(codes, network.vocab_size).permute(0, 3, 1, 2).float()
        return dall_e.unmap_pixels(torch.sigmoid(network(one_hot).float()[:, :3]))
    if name == "vqgan":
        latents = network["quantize"].get_codebook_entry(codes.reshape(-1), (*codes.shape, 48))
        return ((network["decoder"](network["post_quant_conv"](latents)) + 1) / 2).clamp(0, 1)
    latents = torch.from_numpy(gaussian_codes(32_768, 4, 0)[codes]).float().permute(0, 3, 1, 2) / 0.18215
    return ((network.decode(latents).sample + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize("name", ["dvae", "vqgan", "sdvae"])
def test_bf16_keeps_most_ids_and_says_how_many(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    reference: Reference = request.getfixturevalue(name)
    exact, fast = load(reference.spec), load({**reference.spec, "precision": "bf16"})
    images = np.ascontiguousarray(reference.images[:3, :, :64, :64])
    facts = precision_facts(fast, images.transpose(0, 2, 3, 1))
    flips = float(np.mean(fast.encode(images) != exact.encode(images)))
    assert facts == {"precision": "bf16", "flips": flips} and 0 < flips < 0.3
    assert precision_facts(exact, images.transpose(0, 2, 3, 1)) == {"precision": "fp32"}
    assert fast.spec["id"] == exact.spec["id"]
    checked = canary.check(LocalStore(tmp_path), fast, 32)
    assert checked["precision"] == "bf16" and 0 <= checked["flips"] < 1 and checked["differs"] == 0


@pytest.mark.parametrize("name", ["dvae", "vqgan"])
def test_neither_package_is_needed(name: str, request: pytest.FixtureRequest, folder: Path) -> None:
    """The pickles name classes of packages that do not import here."""
    reference: Reference = request.getfixturevalue(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "empty-cache"))
        for package in ("dall_e", "dall_e.encoder", "dall_e.utils", "taming", "pytorch_lightning", "diffusers"):
            patch.setitem(sys.modules, package, None)
        codes = load(reference.spec).encode(reference.images[:1])
    assert (codes == load(reference.spec).encode(reference.images[:1])).all()


def test_the_spec_remakes_a_tokenizer_by_its_hash_alone(dvae: Reference) -> None:
    first = load(dvae.spec)
    again = load({key: value for key, value in first.spec.items() if key != "weights"})
    assert (
        again.spec["id"] == first.spec["id"] and (again.encode(dvae.images[:1]) == first.encode(dvae.images[:1])).all()
    )
    with pytest.raises(UserError, match="its sha256 is"):
        load({**first.spec, "weights_sha256": "0" * 64})
    with pytest.raises(UsageError, match="vocab_size 1024, but its weights have 8,192 codes"):
        load({**dvae.spec, "vocab_size": 1024})


@pytest.mark.parametrize("key", ["weights", "precision", "device", "trained_with", "decoder"])
def test_the_id_depends_on_weights_not_on_where_they_are_or_run(dvae: Reference, key: str) -> None:
    from toto.tokenize.tokenizers.identity import with_id

    spec = load(dvae.spec).spec
    assert with_id({**spec, key: "other", "id": ""})["id"] == with_id({**spec, "id": ""})["id"]
    assert with_id({**spec, "weights_sha256": "other", "id": ""})["id"] != with_id({**spec, "id": ""})["id"]


def test_names_of_diffusers_old_and_new_and_of_compvis_give_the_same_ids(sdvae: Reference, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    wanted = load(sdvae.spec).encode(sdvae.images[:1])
    own = load_file(next((folder / "sd-vae").glob("*.safetensors")))
    for name, rename in {"old": as_old_diffusers, "compvis": as_compvis}.items():
        path = folder / f"{name}.safetensors"
        save_file({rename(key): flatten(rename, key, value) for key, value in own.items()}, path)
        assert (load({"name": "sdvae", "weights": str(path)}).encode(sdvae.images[:1]) == wanted).all()
    torch.save(own, folder / "model.bin")
    assert (load({"name": "sdvae", "weights": str(folder / "model.bin")}).encode(sdvae.images[:1]) == wanted).all()


def as_old_diffusers(name: str) -> str:
    """As stabilityai/sd-vae-ft-mse names its attention."""
    pairs = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))
    for new, old in pairs:
        name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return name


def as_compvis(name: str) -> str:
    """As the original checkpoints do, inside a whole Stable Diffusion model."""
    for i in range(4):
        name = name.replace(f"down_blocks.{i}.", f"down.{i}.").replace(f"up_blocks.{i}.", f"up.{3 - i}.")
    pairs = (
        ("resnets.", "block."),
        ("mid_block.block.0", "mid.block_1"),
        ("mid_block.block.1", "mid.block_2"),
        ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
        ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
        ("mid_block.attentions.0.to_", "mid.attn_1."),
        ("conv_shortcut", "nin_shortcut"),
        ("downsamplers.0", "downsample"),
        ("upsamplers.0", "upsample"),
        ("conv_norm_out", "norm_out"),
    )
    for theirs, ours in pairs:
        name = name.replace(theirs, ours)
    return f"first_stage_model.{name}"


def flatten(rename: Any, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Attention's matrices are 1×1 convolutions in the original."""
    is_matrix = rename is as_compvis and "attentions" in name and name.endswith("weight") and tensor.ndim == 2
    return tensor[:, :, None, None].contiguous() if is_matrix else tensor.clone()


def test_a_yaml_of_another_model_is_refused(vqgan: Reference, folder: Path) -> None:
    yaml = "model:\n  target: taming.models.vqgan.{}\n  params: {{embed_dim: 48, n_embed: {}}}\n"
    path = folder / "model.yaml"
    path.write_text(yaml.format("VQModel", 1024))
    assert load({**vqgan.spec, "model_config": str(path)}).vocab_size == 1024
    for name, content, said in (
        ("gumbel", yaml.format("GumbelVQ", 1024), "only taming's VQModel"),
        ("other", yaml.format("VQModel", 16384), "n_embed is 16384, the checkpoint has 1024"),
    ):
        (folder / f"{name}.yaml").write_text(content)
        with pytest.raises(UsageError, match=said):
            load({**vqgan.spec, "model_config": str(folder / f"{name}.yaml")})


def test_a_gpu_that_is_not_there_is_said(dvae: Reference) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UsageError, match="torch finds no GPU here"):
        load(dvae.spec, "cuda").encode(dvae.images[:1])


def test_the_official_size_agrees_too(folder: Path, photos: Path | None) -> None:
    """53.8 million parameters; one picture, so few codes: bench/tokenizer_agreement.py has the figures of many."""
    import dall_e

    torch.manual_seed(0)
    encoder, images = dall_e.Encoder(), pictures(1, SIDE, photos)
    calibrate_dvae(encoder, images)
    torch.save(encoder.state_dict(), folder / "official.pt")
    scores = flat(encoder(dall_e.map_pixels(unit(images))))
    found = load({"name": "dvae", "weights": str(folder / "official.pt")}).encode(images).reshape(-1)
    wanted = scores.argmax(1).numpy()
    near = (margins(scores) <= NEAR_TIE).numpy()
    print(f"official size: {len(np.unique(wanted))} codes in {len(wanted)} ids, {near.sum()} near-ties")
    assert not ((found != wanted) & ~near).any() and len(np.unique(wanted)) >= 150
