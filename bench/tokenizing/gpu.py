"""Pictures per second of the networks on a GPU: in bf16, compiled, as toto runs them there, against plain float32.

Everything is counted from uint8 pictures in the machine's memory to ids there. Both sides are toto's own networks with
the same calibrated weights; how their ids compare with those of the packages is tokenizer_agreement.py's matter.
"""

import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from encoders import PEERS, prepare
from sides import Line, compare, skipped
from torch.utils.flop_counter import FlopCounterMode

from toto.tokenizers import load
from toto.train.hardware import peak_flops

NETWORKS = ("peer_dalle", "peer_taming")
PICTURES = 1024  # of a repetition
SIDES = ({"precision": "bf16", "compile": "on"}, {"precision": "fp32", "compile": "off"})


def measure(repeats: int) -> list[Line]:
    """The dVAE and VQGAN-16k, with the share of the GPU's peak in bf16."""
    if not torch.cuda.is_available():
        return skipped("networks in bf16 on a GPU", "torch finds no GPU")
    return [measure_on("cuda", network, PICTURES, repeats) for network in NETWORKS]


def measure_on(device: str, network: str, count: int, repeats: int) -> Line:
    """The line of one network, for `count` pictures a repetition."""
    module, name = importlib.import_module(network), PEERS[network][0]
    with tempfile.TemporaryDirectory() as folder:
        spec = prepare(module, Path(folder)) | {"device": device}
        quick, plain = (load({**spec, **settings}) for settings in SIDES)
        pictures = np.load(Path(folder) / "pictures.npy")
        pictures = np.tile(pictures, (-(-count // len(pictures)), 1, 1, 1))[:count]
        same = float((quick.encode(pictures) == plain.encode(pictures)).mean())
        what = f"{name} on a GPU, bf16 compiled, against fp32 as it is, {module.SIDE} px"
        found = compare(what, "pictures/s", _rate_of(quick, pictures), _rate_of(plain, pictures), None, repeats)
        with FlopCounterMode(display=False) as counted:
            plain.encode(pictures[:1])
    peak, source = peak_flops(torch.device(device), "bf16")
    share = found["ours"] * counted.get_total_flops() / peak
    click.echo(f"  {share:.0%} of {peak / 1e12:,.0f} TFLOP/s ({source}); {same:.1%} of the ids agree\n")
    return {**found, "peak_share": share, "same_ids": same}


def _rate_of(tokenizer: Any, pictures: np.ndarray) -> Callable[[], float]:
    def rate() -> float:
        started = time.perf_counter()
        tokenizer.encode(pictures)
        return len(pictures) / (time.perf_counter() - started)

    return rate
