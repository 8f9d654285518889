"""`sdvae`: the VAE of Stable Diffusion (arXiv 2112.10752) with a codebook of random codes, of 8×8 pixels.

A picture's latents are the means that the encoder gives, × 0.18215, which makes their spread about 1. Its code is the
nearest of vocab_size vectors drawn once from a normal distribution. Weights: diffusers' folder or file, or CompVis'.
The package diffusers is not needed.
"""

import hashlib
import json
from typing import Any

import numpy as np

from toto.errors import UsageError, UserError
from toto.tokenize.tokenizers.codebook import TreeCodebook, gaussian_codes
from toto.tokenize.tokenizers.identity import place, recorded
from toto.tokenize.tokenizers.net_tokenizer import NetTokenizer
from toto.tokenize.tokenizers.untrained import drawn
from toto.tokenize.tokenizers.vqgan import patch_of
from toto.tokenize.weights import forgotten_if_wrong, local_path, obtain
from toto.tokenize.weights_convert import AUTOENCODER, WeightsFile, stored

SCALE = 0.18215  # scaling_factor of the Stable Diffusion VAEs
VOCAB_SIZE = 32_768
SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")  # of files; another URI is a folder of diffusers
FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def make(spec: dict[str, Any], device: str = "cpu") -> "SDVAE":
    """The tokenizer of a spec; UserError when the weights or the codebook are not those of the spec."""
    if spec.get("untrained"):
        return SDVAE(spec, drawn("sdvae", spec), device)
    uri, found = file_of({**spec, "weights": place(spec, "weights")})
    weights = stored("sdvae", uri, spec.get("weights_sha256"))
    tokenizer = SDVAE({**found, "weights": spec.get("weights")}, weights, device)
    if spec.get("codebook_sha256", tokenizer.spec["codebook_sha256"]) != tokenizer.spec["codebook_sha256"]:
        raise UsageError("sdvae: the codebook made here is not the one the dataset was made with (its hash differs)")
    return tokenizer


class SDVAE(NetTokenizer):
    """The nearest random code to each scaled mean."""

    def __init__(self, spec: dict[str, Any], weights: WeightsFile, device: str) -> None:
        vocab_size, seed = int(spec.get("vocab_size") or VOCAB_SIZE), int(spec.get("seed") or 0)
        self._scale = float(spec.get("scale") or SCALE)
        self._channels = weights.shapes["post_quant_conv.weight"][1]
        self._codebook = TreeCodebook(gaussian_codes(vocab_size, self._channels, seed))
        facts = {
            "name": "sdvae",
            "vocab_size": vocab_size,
            "patch": patch_of(weights),
            "seed": seed,
            "scale": self._scale,
            "weights_sha256": weights.sha256,
            "codebook_sha256": hashlib.sha256(self._codebook.codes.astype("<f8").tobytes()).hexdigest(),
        }
        super().__init__({**recorded(spec), **facts}, device)
        self._weights = weights

    def _load_encoder(self) -> Any:
        from toto.tokenize.tokenizers.autoencoder_arithmetic import DIFFUSERS
        from toto.tokenize.tokenizers.autoencoder_net import load_autoencoder_encoder

        return load_autoencoder_encoder(self._weights.tensors(*AUTOENCODER), DIFFUSERS)

    def _load_decoder(self) -> Any:
        from toto.tokenize.tokenizers.autoencoder_arithmetic import DIFFUSERS
        from toto.tokenize.tokenizers.autoencoder_net import load_autoencoder_decoder

        return load_autoencoder_decoder(self._weights.tensors(*AUTOENCODER), DIFFUSERS)

    def _codes(self, head: Any) -> np.ndarray:
        n, _, h, w = head.shape
        latents = head[:, : self._channels] * self._scale  # the means; log variances are the other half
        vectors = latents.permute(0, 2, 3, 1).reshape(-1, self._channels)
        return self._codebook.nearest(vectors.double().cpu().numpy()).reshape(n, h, w)

    def _pixels(self, codes: Any) -> Any:
        import torch

        latents = self._codebook.codes[codes.cpu().numpy()] / self._scale
        return self._decoder(torch.from_numpy(latents).float().permute(0, 3, 1, 2).to(codes.device))


def file_of(spec: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The file of weights that a spec names, or that lies in the folder it names; the spec with the folder's scale."""
    uri = spec.get("weights")
    if uri is None or uri.partition("?")[0].endswith(SUFFIXES) or "scale" in spec:
        return uri, spec
    base, local = uri.rstrip("/"), local_path(uri)
    names = [name for name in FILES if local is None or (local / name).is_file()]
    if not names:
        raise UserError(f"{base}: no folder with {FILES[0]} or {FILES[1]} in it; name one, or a file of weights")
    return f"{base}/{names[0]}", {"scale": _scale_of(base), **spec}


def _scale_of(folder: str) -> float:
    """scaling_factor of a config.json of diffusers; UsageError for networks that ours are not."""
    where = f"{folder}/config.json"
    with forgotten_if_wrong(where):
        try:
            config = json.loads(obtain(where).path.read_bytes())
            groups, activation = config.get("norm_num_groups", 32), config.get("act_fn", "silu")
            scale = float(config.get("scaling_factor", SCALE))
        except (ValueError, TypeError, AttributeError):
            raise UserError(f"{where}: no configuration of diffusers' AutoencoderKL") from None
    if groups != 32 or activation != "silu":
        raise UsageError(f"{where}: only autoencoders with norm_num_groups 32 and act_fn silu are taken")
    return scale
