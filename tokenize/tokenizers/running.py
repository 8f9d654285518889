"""How a tokenizer's network runs: device, precision, threads, and how many pictures go through it at once.

    uint8 pictures ─prepare, fp32─▶ trunk ─bf16 or fp32─▶ head ─fp32─▶ codes

fp32 is the exact mode. On a CPU one picture at a time goes through one thread, so that neither neighbours nor padding
nor the number of workers changes a code; cores are used by more workers. There dvae_trunk.py does the dVAE's trunk in
half the time; autoencoder_net.py gives the bits of taming and diffusers. On a GPU batches have one fixed shape (this
path has not run on a GPU yet).
bf16 runs the trunk, where the time goes, in half the bits; codes at near-ties flip (canary.py measures how many). On a
CPU dvae_bf16.py and autoencoder_bf16.py do so where their kernels run, elsewhere compiled.py.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from toto.errors import UsageError
from toto.tokenize.tokenizers.autoencoder_bf16 import AutoencoderInBf16
from toto.tokenize.tokenizers.compiled import Trunk, compiled, computes_in_bf16
from toto.tokenize.tokenizers.dvae_bf16 import DVAEInBf16
from toto.tokenize.tokenizers.dvae_net import DVAEEncoder
from toto.tokenize.tokenizers.dvae_trunk import DVAETrunk
from toto.tokenize.tokenizers.kept_memory import keep_memory

GPU_BATCH = 64  # pictures


class EncodingNet(Protocol):
    """A network in three parts; see dvae_net.py and autoencoder_net.py."""

    def prepare(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> float32."""
        ...

    def trunk(self, prepared: Tensor) -> Tensor:
        """Most of the arithmetic; in bf16 where that is asked for."""
        ...

    def head(self, features: Tensor) -> Tensor:
        """The last layers, always in float32."""
        ...


Finish = Callable[[Tensor], np.ndarray]  # what head gives, [n, c, h, w] -> int codes [n, h, w]


@dataclass(frozen=True)
class Placement:
    """Where and how a network runs."""

    device: str  # cpu, cuda, cuda:1
    precision: str  # fp32, bf16
    compile: bool = False

    @property
    def on_cpu(self) -> bool:
        """Whether nothing leaves the CPU."""
        return self.device == "cpu"

    @property
    def batch(self) -> int | None:
        """Pictures of one call; None: any number, each goes through alone."""
        return None if self.on_cpu else GPU_BATCH

    @classmethod
    def of(cls, spec: dict[str, Any], device: str) -> "Placement":
        """From a tokenizer's spec; `auto` is a GPU where there is one, and bf16 on a GPU. UsageError without one."""
        has_gpu = torch.cuda.is_available()
        if device == "auto":
            device = "cuda" if has_gpu else "cpu"
        if device.startswith("cuda") and not has_gpu:
            raise UsageError(f"tokenizer {spec['name']}: device {device}, but torch finds no GPU here; use device: cpu")
        precision = spec.get("precision", "auto")
        if precision == "auto":
            precision = "fp32" if device == "cpu" else "bf16"
        pays = precision == "bf16" and (device != "cpu" or computes_in_bf16())
        return cls(device, precision, {"on": precision == "bf16", "off": False}.get(spec.get("compile", "auto"), pays))


@dataclass(frozen=True)
class Ways:
    """How a network's parts are computed."""

    trunk: Trunk
    head: Trunk


class Running:
    """A network at its place, ready to encode."""

    def __init__(self, net: Any, placement: Placement) -> None:
        if placement.on_cpu:
            keep_memory()
        self._placement = placement
        self._net = net.to(placement.device)
        self._exact = Ways(_trunk_for_one_picture(net) if placement.on_cpu else net.trunk, net.head)
        self._asked = self._exact if placement.precision == "fp32" else _half(net, placement)

    def encode(self, pictures: np.ndarray, finish: Finish) -> np.ndarray:
        """uint8 [n, 3, H, W] -> int32 [n, h, w], in the precision that was asked for."""
        return self._run(pictures, self._asked, finish)

    def encode_exact(self, pictures: np.ndarray, finish: Finish) -> np.ndarray:
        """The same in fp32, whatever was asked for."""
        return self._run(pictures, self._exact, finish)

    def _run(self, pictures: np.ndarray, ways: Ways, finish: Finish) -> np.ndarray:
        step = 1 if self._placement.on_cpu else GPU_BATCH
        with exact_arithmetic(threads=1):
            parts = [
                finish(ways.head(ways.trunk(self._net.prepare(self._moved(pictures[i : i + step])))))
                for i in range(0, len(pictures), step)
            ]
        return np.concatenate(parts).astype(np.int32)

    def _moved(self, pictures: np.ndarray) -> Tensor:
        return torch.from_numpy(pictures.copy()).to(self._placement.device)


def _trunk_for_one_picture(net: Any) -> Trunk:
    with torch.inference_mode():
        return DVAETrunk(net) if isinstance(net, DVAEEncoder) else net.trunk


def _half(net: Any, placement: Placement) -> Ways:
    if placement.on_cpu and placement.compile:
        for quicker in (DVAEInBf16, AutoencoderInBf16):
            if quicker.takes(net):
                with torch.inference_mode():
                    quick = quicker(net)
                return Ways(quick.trunk, quick.head)
    half = copy.deepcopy(net).bfloat16().to(memory_format=torch.channels_last)
    trunk = compiled(half.trunk, placement.device) if placement.compile else half.trunk
    return Ways(lambda x: trunk(x.to(torch.bfloat16, memory_format=torch.channels_last)).float(), net.head)


@contextmanager
def exact_arithmetic(threads: int) -> Iterator[None]:
    """Inference on this many CPU threads, float32 as float32: GPUs would round to TF32 in convolutions by default."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    try:
        with torch.inference_mode(), flags:
            yield
    finally:
        torch.set_num_threads(before)
