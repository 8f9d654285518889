"""The encoder of VQGAN and SD-VAE in bf16, for one picture at a time on one CPU thread, by bf16_kernels.py.

Its convolutions multiply in bf16 and add in float32; between them everything is float32, channels last. The first layer
and attention are float32 too: they take a small part of the time. A layer that halves the picture lays out what it
sees: VQGAN at 512 px takes 1.1 GB at its peak, beside the weights (0.9 GB in float32).
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from toto.tokenize.tokenizers.autoencoder_net import AutoencoderEncoder, Downsample, ResnetBlock
from toto.tokenize.tokenizers.bf16_kernels import Convolution, Product, kernels


class AutoencoderInBf16:
    """What AutoencoderEncoder.trunk and .head do, for one picture."""

    def __init__(self, net: AutoencoderEncoder) -> None:
        self._quick = _quick_copy(net)
        self.head = net.head

    @staticmethod
    def takes(net: nn.Module) -> bool:
        """Whether this machine has the kernels; its norms have 32 groups, so that channels fill registers."""
        return isinstance(net, AutoencoderEncoder) and kernels() is not None

    def trunk(self, prepared: Tensor) -> Tensor:
        """float32 [1, 3, h, w] -> features [1, widths[-1], h / patch, w / patch]."""
        return self._quick.trunk(prepared.to(memory_format=torch.channels_last))


def _quick_copy(net: AutoencoderEncoder) -> AutoencoderEncoder:
    shared = {id(tensor): tensor for tensor in net.parameters()}  # deepcopy leaves what is already in its memo
    quick = copy.deepcopy(net, shared)
    for block in list(quick.encoder.modules()):
        if isinstance(block, ResnetBlock):
            block.swish = partial(F.silu, inplace=True)  # of what a norm has just made
        if isinstance(block, ResnetBlock | Downsample):
            for name, layer in list(block.named_children()):
                if isinstance(layer, nn.Conv2d):
                    setattr(block, name, _way(layer))
    return quick


def _way(layer: nn.Conv2d) -> nn.Module:
    if layer.kernel_size == (1, 1):
        return _One(layer)
    return _Same(layer) if layer.stride == (1, 1) else _Half(layer)


class _Same(nn.Module):
    """3×3."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self._convolution = Convolution(layer)

    def forward(self, x: Tensor) -> Tensor:
        """[1, c, h, w] -> [1, o, h, w]."""
        return _outside(self._convolution(_inside(x)))


class _One(nn.Module):
    """1×1."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert layer.bias is not None
        self._product = Product(layer.weight[:, :, 0, 0], layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[1, c, h, w] -> [1, o, h, w]."""
        places = _inside(x)
        return _outside(self._product(places.flatten(0, 1)).unflatten(0, places.shape[:2]))


class _Half(nn.Module):
    """3×3 of stride 2, of a picture that is padded already."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        assert layer.bias is not None
        self._product = Product(layer.weight.permute(0, 2, 3, 1).flatten(1), layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[1, c, h, w] -> [1, o, (h - 1) / 2, (w - 1) / 2]."""
        windows = _inside(x).unfold(0, 3, 2).unfold(1, 3, 2).permute(0, 1, 3, 4, 2)  # [rows, columns, 3, 3, c]
        return _outside(self._product(windows.flatten(2).flatten(0, 1)).unflatten(0, windows.shape[:2]))


def _inside(x: Tensor) -> Tensor:
    return x[0].permute(1, 2, 0)


def _outside(x: Tensor) -> Tensor:
    return x[None].permute(0, 3, 1, 2)
