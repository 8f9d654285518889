"""The convolutional autoencoder that taming's VQGAN and the Stable Diffusion VAE share (arXiv 2012.09841, 2112.10752).

    pixels ─▶ 3×3 ─▶ levels of residual blocks, halved between ─▶ middle, attention ─▶ norm, 3×3, 1×1 ─▶ latents
              └────────────────────────── trunk ────────────────────────────────┘ └──── head ────┘

Parameters have the names of the CompVis repositories (encoder.down.0.block.0.conv1.weight). What a network looks like
follows from its tensors' names and shapes: channels, levels, blocks, and the levels that have attention. In float32,
one picture at a time on one thread, latents have the bits of the package whose arithmetic is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from toto.tokenize.tokenizers.autoencoder_arithmetic import TAMING, Arithmetic
from toto.tokenize.tokenizers.filling import filled

NORM_GROUPS = 32
NORM_EPSILON = 1e-6

Shapes = Mapping[str, tuple[int, ...]]  # of tensors by name


@dataclass(frozen=True)
class AutoencoderSize:
    """How large an autoencoder is; VQGAN f16: 128, (128, 128, 256, 256, 512), 2, {4}, 256, 256, 256."""

    first: int  # channels after the first convolution
    widths: tuple[int, ...]  # channels of each level; between levels the side is halved
    blocks: int  # of a level
    attention: frozenset[int]  # levels with attention after each block
    z: int  # channels that the encoder ends with: twice as many where it gives means and variances
    latent: int  # channels that the decoder begins with
    code: int  # channels between quant_conv and post_quant_conv: of a code

    @property
    def patch(self) -> int:
        """Pixels of a side that become one latent."""
        return 2 ** (len(self.widths) - 1)

    @classmethod
    def of(cls, shapes: Shapes) -> "AutoencoderSize":
        """From the tensors of a whole autoencoder; KeyError when one is missing."""
        levels = 0
        while f"encoder.down.{levels}.block.0.conv1.weight" in shapes:
            levels += 1
        blocks = 0
        while f"encoder.down.0.block.{blocks}.conv1.weight" in shapes:
            blocks += 1
        return cls(
            first=shapes["encoder.conv_in.weight"][0],
            widths=tuple(shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)),
            blocks=blocks,
            attention=frozenset(i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in shapes),
            z=shapes["encoder.conv_out.weight"][0],
            latent=shapes["post_quant_conv.weight"][0],
            code=shapes["post_quant_conv.weight"][1],
        )


class ResnetBlock(nn.Module):
    """x + branch(x): twice norm, swish, 3×3."""

    def __init__(self, n_in: int, n_out: int, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.swish = arithmetic.swish
        self.norm1, self.conv1 = _norm(n_in), nn.Conv2d(n_in, n_out, 3, padding=1)
        self.norm2, self.conv2 = _norm(n_out), nn.Conv2d(n_out, n_out, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(n_in, n_out, 1) if n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in, h, w] -> [n, n_out, h, w]."""
        branch = self.conv1(self.swish(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(self.swish(self.norm2(branch)))


class Attention(nn.Module):
    """x + attention of every position to every other, one head."""

    def __init__(self, channels: int, arithmetic: Arithmetic) -> None:
        super().__init__()
        self._attention = arithmetic.attention
        self.norm = _norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w], the same shape out."""
        return x + self._attention(self.norm(x), self.q, self.k, self.v, self.proj_out)


class Downsample(nn.Module):
    """Half the side by a 3×3 convolution, padded at the right and at the bottom alone."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, channels, h / 2, w / 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side by repetition, then a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] -> [n, channels, 2 h, 2 w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention where the level has it, then the change of side."""

    def __init__(self, widths: list[int], attends: bool, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(a, b, arithmetic) for a, b in zip(widths, widths[1:], strict=False))
        self.attn = nn.ModuleList(Attention(width, arithmetic) for width in widths[1:] if attends)

    def forward(self, x: Tensor) -> Tensor:
        """[n, widths[0], h, w] -> [n, widths[-1], h', w']."""
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        for change in ("downsample", "upsample"):
            if hasattr(self, change):
                x = getattr(self, change)(x)
        return x


class Middle(nn.Module):
    """Block, attention, block at the smallest side."""

    def __init__(self, channels: int, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            ResnetBlock(channels, channels, arithmetic),
            Attention(channels, arithmetic),
            ResnetBlock(channels, channels, arithmetic),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w], the same shape out."""
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    """Pixels -> what quant_conv takes."""

    def __init__(self, size: AutoencoderSize, arithmetic: Arithmetic) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, size.first, 3, padding=1)
        self.down = nn.ModuleList()
        before = size.first
        for i, width in enumerate(size.widths):
            level = Level([before, *[width] * size.blocks], i in size.attention, arithmetic)
            if i < len(size.widths) - 1:
                level.downsample = Downsample(width)
            self.down.append(level)
            before = width
        self.mid = Middle(before, arithmetic)
        self.norm_out, self.conv_out = _norm(before), nn.Conv2d(before, size.z, 3, padding=1)


class AutoencoderEncoder(nn.Module):
    """Pixels -> latents, in two parts that may run in different precisions."""

    def __init__(self, size: AutoencoderSize, arithmetic: Arithmetic = TAMING) -> None:
        super().__init__()
        self._swish = arithmetic.swish
        self.encoder = Encoder(size, arithmetic)
        self.quant_conv = nn.Conv2d(size.z, size.code * size.z // size.latent, 1)

    def prepare(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> float32 of [-1, 1]."""
        return pictures.float().div_(255).mul_(2).sub_(1)

    def trunk(self, prepared: Tensor) -> Tensor:
        """What prepare gives -> features [n, widths[-1], h / patch, w / patch]."""
        x = self.encoder.conv_in(prepared)
        for level in self.encoder.down:
            x = level(x)
        return self.encoder.mid(x)

    def head(self, features: Tensor) -> Tensor:
        """Features -> latents, or their means and log variances, [n, code or 2 code, h / patch, w / patch]."""
        return self.quant_conv(self.encoder.conv_out(self._swish(self.encoder.norm_out(features))))

    def forward(self, pictures: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] -> what head gives."""
        return self.head(self.trunk(self.prepare(pictures)))


class Decoder(nn.Module):
    """What post_quant_conv gives -> pixels of [-1, 1]."""

    def __init__(self, size: AutoencoderSize, arithmetic: Arithmetic) -> None:
        super().__init__()
        self._swish = arithmetic.swish
        before = size.widths[-1]
        self.conv_in = nn.Conv2d(size.latent, before, 3, padding=1)
        self.mid = Middle(before, arithmetic)
        levels = []
        for i, width in reversed(list(enumerate(size.widths))):
            level = Level([before, *[width] * (size.blocks + 1)], i in size.attention, arithmetic)
            if i:
                level.upsample = Upsample(width)
            levels.append(level)
            before = width
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out, self.conv_out = _norm(before), nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[n, latent, h, w] -> [n, 3, patch h, patch w]."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(self._swish(self.norm_out(x)))


class AutoencoderDecoder(nn.Module):
    """Latents -> pixels."""

    def __init__(self, size: AutoencoderSize, arithmetic: Arithmetic = TAMING) -> None:
        super().__init__()
        self.post_quant_conv = nn.Conv2d(size.code, size.latent, 1)
        self.decoder = Decoder(size, arithmetic)

    def forward(self, latents: Tensor) -> Tensor:
        """float [n, code, h, w] -> pixels of [0, 1], [n, 3, patch h, patch w]."""
        return ((self.decoder(self.post_quant_conv(latents)) + 1) / 2).clamp(0, 1)


def load_autoencoder_encoder(tensors: Mapping[str, Tensor], arithmetic: Arithmetic = TAMING) -> AutoencoderEncoder:
    """The encoding half of a whole autoencoder's tensors; UserError when some are missing or misshapen."""
    return filled(lambda: AutoencoderEncoder(_size(tensors), arithmetic), _half(tensors, "encoder.", "quant_conv."))


def load_autoencoder_decoder(tensors: Mapping[str, Tensor], arithmetic: Arithmetic = TAMING) -> AutoencoderDecoder:
    """The decoding half of a whole autoencoder's tensors; UserError when some are missing or misshapen."""
    return filled(
        lambda: AutoencoderDecoder(_size(tensors), arithmetic), _half(tensors, "decoder.", "post_quant_conv.")
    )


def _size(tensors: Mapping[str, Tensor]) -> AutoencoderSize:
    return AutoencoderSize.of({name: tuple(t.shape) for name, t in tensors.items()})


def _half(tensors: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(NORM_GROUPS, channels, eps=NORM_EPSILON)
