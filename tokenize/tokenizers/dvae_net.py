"""The networks of OpenAI's discrete VAE (DALL·E, arXiv 2102.12092), of plain convolutions.

    pixels ─prepare─▶ 7×7 ─▶ 4 groups of residual blocks, halved between them ─▶ relu, 1×1 ─▶ logits of 8,192 codes
                      └──────────────────── trunk ───────────────────────────┘ └─ head ──┘

Parameters have the names of the package dall_e, but weight and bias for its w and b; how large a network is follows
from its tensors' shapes. The gain of each residual branch (1/64 of the official one) is folded into the branch's last
convolution: a power of two, so that every fp32 sum stays what it was.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from toto.tokenize.tokenizers.filling import filled

GROUPS = 4  # of residual blocks; between them three halvings make the patch of 8 pixels
EPSILON = 0.1  # dall_e's map_pixels keeps the logit-Laplace distribution away from 0 and 1
ENCODER_KERNELS = (3, 3, 3, 1)
DECODER_KERNELS = (1, 3, 3, 3)
FIRST_CONVOLUTION = "blocks.group_1.block_{}.res_path.conv_1.weight"  # of the first group's n-th block

Shapes = Mapping[str, tuple[int, ...]]  # of tensors by name


@dataclass(frozen=True)
class DVAESize:
    """How large a dVAE network is; the official one: 256, 2, 8,192."""

    hidden: int = 256  # channels of the first group of the encoder
    blocks: int = 2  # of a group
    vocab_size: int = 8192
    first: int = 128  # channels that the decoder begins with

    @classmethod
    def of_encoder(cls, shapes: Shapes) -> "DVAESize":
        """From an encoder's tensors; KeyError when one is missing."""
        blocks = _count(shapes, FIRST_CONVOLUTION)
        return cls(shapes["blocks.input.weight"][0], blocks, shapes["blocks.output.conv.weight"][0])

    @classmethod
    def of_decoder(cls, shapes: Shapes) -> "DVAESize":
        """From a decoder's tensors; KeyError when one is missing."""
        first, vocab_size = shapes["blocks.input.weight"][:2]
        blocks = _count(shapes, FIRST_CONVOLUTION)
        return cls(shapes["blocks.output.conv.weight"][1], blocks, vocab_size, first)


class Block(nn.Module):
    """x + branch(x): four convolutions on a quarter of the channels."""

    def __init__(self, n_in: int, n_out: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        widths = [n_in, n_out // 4, n_out // 4, n_out // 4, n_out]
        self.id_path = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, kernel in enumerate(kernels):
            layers[f"relu_{i + 1}"] = nn.ReLU()
            layers[f"conv_{i + 1}"] = nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2)
        self.res_path = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in, h, w] -> [n, n_out, h, w]; the gain is in the branch's last weights."""
        return self.id_path(x) + self.res_path(x)


class DVAEEncoder(nn.Module):
    """Pixels -> logits over the codes, in two parts that may run in different precisions."""

    def __init__(self, size: DVAESize) -> None:
        super().__init__()
        widths = [size.hidden * 2**i for i in range(GROUPS)]
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(3, size.hidden, 7, padding=3))
        for i, width in enumerate(widths):
            group = _group(widths[max(i - 1, 0)], width, size.blocks, ENCODER_KERNELS)
            if i < GROUPS - 1:
                group["pool"] = nn.MaxPool2d(2)
            layers[f"group_{i + 1}"] = nn.Sequential(group)
        layers["output"] = _output(widths[-1], size.vocab_size)
        self.blocks = nn.Sequential(layers)

    def prepare(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> float32 of [0.1, 0.9]: dall_e's map_pixels of pixels / 255."""
        return pictures.float().div_(255).mul_(1 - 2 * EPSILON).add_(EPSILON)

    def trunk(self, prepared: Tensor) -> Tensor:
        """What prepare gives -> features [n, 8 hidden, h / 8, w / 8]."""
        return self.blocks[:-1](prepared)

    def head(self, features: Tensor) -> Tensor:
        """Features -> logits [n, codes, h / 8, w / 8]."""
        return self.blocks[-1](features)

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> logits [n, codes, h / 8, w / 8]."""
        return self.head(self.trunk(self.prepare(pictures)))


class DVAEDecoder(nn.Module):
    """Codes -> pixels."""

    def __init__(self, size: DVAESize) -> None:
        super().__init__()
        widths = [size.first, *(size.hidden * 2**i for i in reversed(range(GROUPS)))]
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(size.vocab_size, size.first, 1))
        for i in range(GROUPS):
            group = _group(widths[i], widths[i + 1], size.blocks, DECODER_KERNELS)
            if i < GROUPS - 1:
                group["upsample"] = nn.Upsample(scale_factor=2, mode="nearest")
            layers[f"group_{i + 1}"] = nn.Sequential(group)
        layers["output"] = _output(widths[-1], 6)  # means and scales of red, green, blue
        self.blocks = nn.Sequential(layers)

    def forward(self, codes: Tensor) -> Tensor:
        """int64 [n, h, w] -> float pixels of [0, 1] [n, 3, 8 h, 8 w]: the mean of each pixel's distribution."""
        first: Any = self.blocks[0]
        table = first.weight[:, :, 0, 0].t()  # what a 1×1 convolution makes of one-hot codes
        x = table[codes].permute(0, 3, 1, 2) + first.bias[:, None, None]
        means = torch.sigmoid(self.blocks[1:](x)[:, :3])
        return ((means - EPSILON) / (1 - 2 * EPSILON)).clamp(0, 1)


def load_dvae_encoder(tensors: Mapping[str, Tensor]) -> DVAEEncoder:
    """The encoder of a state dict, gains folded in; UserError when tensors are missing or misshapen."""
    return filled(lambda: DVAEEncoder(DVAESize.of_encoder(_shapes(tensors))), _folded(tensors))


def load_dvae_decoder(tensors: Mapping[str, Tensor]) -> DVAEDecoder:
    """The decoder of a state dict, gains folded in; UserError when tensors are missing or misshapen."""
    return filled(lambda: DVAEDecoder(DVAESize.of_decoder(_shapes(tensors))), _folded(tensors))


def _folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    blocks = _count(_shapes(tensors), FIRST_CONVOLUTION)
    gain = 1.0 / max(GROUPS * blocks, 1) ** 2
    return {name: t * gain if ".res_path.conv_4." in name else t for name, t in tensors.items()}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _group(n_in: int, n_out: int, blocks: int, kernels: tuple[int, ...]) -> OrderedDict[str, nn.Module]:
    return OrderedDict((f"block_{i + 1}", Block(n_in if i == 0 else n_out, n_out, kernels)) for i in range(blocks))


def _output(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(n_in, n_out, 1)))


def _count(shapes: Shapes, pattern: str) -> int:
    """How many of pattern.format(1), (2), … are there."""
    count = 0
    while pattern.format(count + 1) in shapes:
        count += 1
    return count
