"""The dVAE as the README of dall_e uses it: the encoder, argmax over its logits; float32, one picture a call."""

from pathlib import Path

import dall_e
import numpy as np
import torch
from calibrated_weights import calibrate_dvae

SIDE = 128


def save(folder: Path, images: np.ndarray) -> dict[str, str]:
    """Calibrates an encoder of the official size, saves it, and gives toto's spec of it."""
    encoder = dall_e.Encoder()
    calibrate_dvae(encoder, images)
    torch.save(encoder.state_dict(), folder / "encoder.pt")
    return {"name": "dvae", "weights": str(folder / "encoder.pt")}


def load(folder: Path):
    """float [1, 3, h, w] of [0, 1] -> ids."""
    encoder = dall_e.Encoder()
    encoder.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return lambda x: torch.argmax(encoder(dall_e.map_pixels(x)), axis=1)
