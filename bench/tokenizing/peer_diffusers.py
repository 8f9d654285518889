"""SD-VAE as diffusers does it, nearest of 32,768 codes by torch.cdist and argmin; float32, one picture a call."""

from pathlib import Path

import numpy as np
import torch
from calibrated_weights import calibrate_sdvae
from diffusers import AutoencoderKL
from official_sizes import SD_VAE

from toto.tokenize.tokenizers.codebook import gaussian_codes

SIDE = 128


def save(folder: Path, images: np.ndarray) -> dict[str, str]:
    """Calibrates a network of the official size, saves it as diffusers does, and gives toto's spec of it."""
    model = AutoencoderKL(**SD_VAE).eval()
    calibrate_sdvae(model, images)
    model.save_pretrained(folder / "sd-vae")
    return {"name": "sdvae", "weights": str(folder / "sd-vae")}


def load(folder: Path):
    """float [1, 3, h, w] of [0, 1] -> ids."""
    model = AutoencoderKL.from_pretrained(folder / "sd-vae", local_files_only=True).eval()
    codes = torch.from_numpy(gaussian_codes(32_768, 4, 0)).float()

    def encode(x: torch.Tensor) -> torch.Tensor:
        latents = model.encode(2 * x - 1).latent_dist.mode() * model.config.scaling_factor
        return torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, 4), codes).argmin(1)

    return encode
