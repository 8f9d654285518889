"""VQGAN f16 with 16,384 codes as taming does it: Encoder, quant_conv, VectorQuantizer2; float32, one picture a call."""

from pathlib import Path

import numpy as np
import torch
from calibrated_weights import calibrate_vqgan
from official_sizes import VQGAN_F16
from taming.modules.diffusionmodules.model import Decoder, Encoder
from taming.modules.vqvae.quantize import VectorQuantizer2
from torch import nn

SIDE, CODES = 256, 16_384


def save(folder: Path, images: np.ndarray) -> dict[str, str]:
    """Calibrates a network of the official size, saves it as Lightning does, and gives toto's spec of it."""
    encoder, quant_conv, codes = Encoder(**VQGAN_F16).eval(), nn.Conv2d(256, 256, 1), torch.empty(CODES, 256)
    calibrate_vqgan(encoder, quant_conv, codes, images)
    codes += 0.1 * torch.randn(codes.shape)  # few pictures: no two codes are the same
    parts = {"encoder": encoder, "quant_conv": quant_conv, "decoder": Decoder(**VQGAN_F16)}
    state = nn.ModuleDict({**parts, "post_quant_conv": nn.Conv2d(256, 256, 1)}).state_dict()
    torch.save({"state_dict": {**state, "quantize.embedding.weight": codes}}, folder / "last.ckpt")
    return {"name": "vqgan", "weights": str(folder / "last.ckpt")}


def load(folder: Path):
    """float [1, 3, h, w] of [0, 1] -> ids."""
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    net = nn.ModuleDict({"encoder": Encoder(**VQGAN_F16).eval(), "quant_conv": nn.Conv2d(256, 256, 1)})
    net["quantize"] = VectorQuantizer2(CODES, 256, beta=0.25)
    net.load_state_dict(state, strict=False)

    def encode(x: torch.Tensor) -> torch.Tensor:
        _, _, (_, _, ids) = net["quantize"](net["quant_conv"](net["encoder"](2 * x - 1)))
        return ids

    return encode
