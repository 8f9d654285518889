"""How far our networks agree with dall_e, taming and diffusers, and what bf16 changes, at the official sizes.

    python bench/tokenizer_agreement.py [--only dvae …] [--pictures 96] [--bf16 8] [--media FOLDER] [--json]

Nobody's weights are needed: the packages' networks are calibrated on pictures until they use their codebook (see
tests/calibrated_weights.py), saved as the official files are, and loaded by toto. Both sides take one picture a call on
one thread. Printed: codes used, ids, near-ties of the reference (best two scores within 1e-4), pictures whose latents
(dvae: logits) differ in a bit, ids that differ and the widest margin of one, and the share that bf16 flips. On real
weights the share may be another: every run of toto-tokenize in bf16 measures its own. On CPUs without bf16 arithmetic
(AVX512_BF16, AMX) bf16 is emulated, some ten times slower than fp32.
"""

import sys
from pathlib import Path

# A script's own folder comes first on the path: `import tokenize` would find the file there, and torch needs Python's.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [
    str(ROOT / "tests"),
    str(ROOT / "bench" / "tokenizing"),
    *(p for p in sys.path if Path(p or ".").resolve() != ROOT / "bench"),
]

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from functools import partial  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from calibrated_weights import calibrate_dvae, calibrate_sdvae, calibrate_vqgan, margins, pictures  # noqa: E402
from official_sizes import SD_VAE, VQGAN_F16  # noqa: E402

from toto.tokenize.tokenizers.codebook import gaussian_codes  # noqa: E402
from toto.tokenizers import load  # noqa: E402

NEAR_TIE = 1e-4


@dataclass
class Reference:
    """A package's network, and toto's spec of the same weights."""

    spec: dict[str, Any]
    encode: Callable[[torch.Tensor], torch.Tensor]  # float [n, 3, R, R] of [0, 1] -> [n, c, h, w]
    scores: Callable[[torch.Tensor], torch.Tensor]  # what encode gives -> [n h w, codes], the best one is the code
    codes: Callable[[torch.Tensor], torch.Tensor]  # what encode gives -> [n h w]


def dvae(folder: Path, images: np.ndarray) -> Reference:
    """OpenAI's dVAE: n_hid 256, two blocks a group, 8,192 codes; a whole pickled module."""
    import dall_e

    encoder = dall_e.Encoder()
    calibrate_dvae(encoder, images)
    torch.save(encoder, folder / "encoder.pkl")
    return Reference(
        {"name": "dvae", "weights": str(folder / "encoder.pkl")},
        lambda x: encoder(dall_e.map_pixels(x)),
        flat,
        lambda logits: flat(logits).argmax(1),
    )


def vqgan(codes: int, folder: Path, images: np.ndarray) -> Reference:
    """taming's VQGAN f16 with so many codes of 256 dimensions."""
    from taming.modules.diffusionmodules.model import Decoder, Encoder
    from taming.modules.vqvae.quantize import VectorQuantizer2
    from torch import nn

    encoder, quant_conv = Encoder(**VQGAN_F16).eval(), nn.Conv2d(256, 256, 1)
    quantize = VectorQuantizer2(codes, 256, beta=0.25)
    codebook = quantize.embedding.weight.data
    calibrate_vqgan(encoder, quant_conv, codebook, images)
    parts = {"encoder": encoder, "quant_conv": quant_conv, "decoder": Decoder(**VQGAN_F16)}
    state = nn.ModuleDict({**parts, "post_quant_conv": nn.Conv2d(256, 256, 1)}).state_dict()
    torch.save({"state_dict": {**state, "quantize.embedding.weight": codebook}}, folder / "last.ckpt")

    def scores(latents: torch.Tensor) -> torch.Tensor:
        z = flat(latents)
        return 2 * z @ codebook.t() - (z.square().sum(1, keepdim=True) + codebook.square().sum(1))

    return Reference(
        {"name": "vqgan", "weights": str(folder / "last.ckpt")},
        lambda x: quant_conv(encoder(x * 2 - 1)),
        scores,
        lambda latents: quantize(latents)[2][2],
    )


def sdvae(folder: Path, images: np.ndarray) -> Reference:
    """Stable Diffusion's VAE, diffusers' class, 32,768 Gaussian codes by brute force in float64."""
    from diffusers import AutoencoderKL
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

    model = AutoencoderKL(**SD_VAE).eval()
    calibrate_sdvae(model, images)
    model.save_pretrained(folder / "sd-vae")
    codes = torch.from_numpy(gaussian_codes(32_768, 4, 0))

    def scores(parameters: torch.Tensor) -> torch.Tensor:
        modes = flat(DiagonalGaussianDistribution(parameters).mode() * model.config.scaling_factor)
        return -torch.cdist(modes.double(), codes, compute_mode="donot_use_mm_for_euclid_dist").square()

    return Reference(
        {"name": "sdvae", "weights": str(folder / "sd-vae")},
        lambda x: model.encode(x * 2 - 1).latent_dist.parameters,
        scores,
        lambda parameters: scores(parameters).argmax(1),
    )


KINDS = {
    "dvae": (dvae, 128),
    "vqgan-1k": (partial(vqgan, 1024), 256),
    "vqgan-16k": (partial(vqgan, 16_384), 256),
    "sdvae": (sdvae, 128),
}


def measure(name: str, count: int, in_bf16: int, media: Path | None, folder: Path) -> dict[str, Any]:
    """Calibrates on three quarters as many pictures as are then compared; bf16 encodes the first of these."""
    make, side = KINDS[name]
    reference = make(folder, pictures(max(8, count * 3 // 4), side, media))
    exact, fast = load(reference.spec), load({**reference.spec, "precision": "bf16"})
    heads = kept_heads(exact)
    wanted, margin, found, quick, other_bits = [], [], [], [], 0
    started = time.perf_counter()
    for i, picture in enumerate(pictures(count, side, media, seed=1)):
        click.echo(f"\r{name}: {i} of {count} pictures", err=True, nl=False)
        encoded = reference.encode(torch.from_numpy(picture[None]).float() / 255)
        wanted.append(reference.codes(encoded).numpy())
        margin.append(margins(reference.scores(encoded)).numpy())
        found.append(exact.encode(picture[None]).reshape(-1))
        other_bits += not torch.equal(heads.pop(), encoded)
        if i < in_bf16:
            quick.append(fast.encode(picture[None]).reshape(-1))
    codes, apart, ours, bf16 = map(np.concatenate, (wanted, margin, found, quick))
    ties, differ = apart <= NEAR_TIE, ours != codes
    flipped = bf16 != ours[: len(bf16)]
    return {
        "tokenizer": name,
        "resolution": side,
        "pictures": count,
        "ids": len(codes),
        "codes_used": len(np.unique(codes)),
        "codes": exact.vocab_size,
        "near_ties": int(ties.sum()),
        "pictures_of_other_bits": other_bits,
        "differ": int(differ.sum()),
        "differ_beyond_near_ties": int((differ & ~ties).sum()),
        "widest_margin_that_differs": float(apart[differ].max(initial=0.0)),
        "bf16_ids": len(bf16),
        "bf16_flips": float(flipped.mean()),
        "seconds": time.perf_counter() - started,
    }


def kept_heads(tokenizer: Any) -> list[torch.Tensor]:
    """Filled with what the tokenizer's network gives, picture by picture, before it becomes codes."""
    heads, codes = [], tokenizer._codes

    def keeping(head: torch.Tensor) -> np.ndarray:
        heads.append(head)
        return codes(head)

    tokenizer._codes = keeping
    return heads


def flat(maps: torch.Tensor) -> torch.Tensor:
    """[n, c, h, w] -> [n h w, c]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@click.command()
@click.option("--only", multiple=True, type=click.Choice(tuple(KINDS)), help="Default: all.")
@click.option("--pictures", "count", type=click.IntRange(8), default=96, show_default=True, help="Compared; of each.")
@click.option("--bf16", "in_bf16", type=click.IntRange(1), default=8, show_default=True, help="Of these in bf16.")
@click.option("--media", type=click.Path(exists=True, path_type=Path), help="Photographs; default: generated textures.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(only: tuple[str, ...], count: int, in_bf16: int, media: Path | None, as_json: bool) -> None:
    """Prints a line of figures for each tokenizer."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    lines = []
    for name in only or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            line = measure(name, count, in_bf16, media, Path(folder))
        lines.append(line)
        click.echo("\r\x1b[K", err=True, nl=False)
        click.echo(
            "{tokenizer} at {resolution}: {codes_used:,} of {codes:,} codes used by {ids:,} ids of {pictures} "
            "pictures, "
            "{near_ties} near-ties; fp32: {pictures_of_other_bits} pictures with other bits, {differ} ids differ, "
            "{differ_beyond_near_ties} of them beyond near-ties, by margins of up to {widest_margin_that_differs:.1e}; "
            "bf16 flips {bf16_flips:.2%} of {bf16_ids:,} ({seconds:.0f} s)".format(**line)
        )
    if as_json:
        click.echo(json.dumps(lines))


if __name__ == "__main__":
    main()
