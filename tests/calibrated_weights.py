"""Random networks that use their codebook: what tests and benches of tokenizers run without anybody's weights.

Weights as a constructor draws them give 19 of 8,192 codes, and agreement on those proves nothing. So, layer by layer in
one forward pass over pictures, every convolution's outputs are brought to mean 0 and variance 1, residual branches to
the weight of the path beside them; the head is spread so that many codes win:

    dvae    rows of the head are prototypes: the features at places of the pictures, in their main whitened directions
    vqgan   the codebook holds latents at places of the pictures
    sdvae   the latents are whitened, so that they lie as the Gaussian codebook does

The networks are those of the packages dall_e, taming and diffusers: references that our own are held against.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

DIRECTIONS = 24  # main directions of features that prototypes are told apart in
LAYERS_FROM = 8  # pictures whose statistics decide the layers' scale


def pictures(count: int, side: int, media: Path | None = None, seed: int = 0) -> np.ndarray:
    """uint8 [count, 3, side, side]: crops of photographs at several scales; of generated textures without a folder."""
    rng = np.random.default_rng(seed)
    photos = _photographs(media) if media is not None and media.is_dir() else [_texture(rng, 512) for _ in range(16)]
    crops = []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        cut = int(min(photo.size) * rng.uniform(0.35, 1.0))
        x, y = (int(rng.integers(0, length - cut + 1)) for length in photo.size)
        box = (x, y, x + cut, y + cut)
        crops.append(np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR, box)))
    return np.stack(crops).transpose(0, 3, 1, 2).copy()


@cache
def _photographs(media: Path) -> list[Image.Image]:
    found = []
    for path in sorted([*media.glob("image_plain/*"), *media.glob("image_labelled/**/*")]):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png") and path.stat().st_size > 10_000:
            with Image.open(path) as image:
                image.draft("RGB", (512, 512))
                photo = image.convert("RGB")
            if min(photo.size) >= 96:
                found.append(photo)
    return found


def _texture(rng: np.random.Generator, side: int) -> Image.Image:
    """Noise of every scale, coarse scales strongest, as photographs have."""
    total = np.zeros((side, side, 3))
    for level in range(2, 9):
        cells = 2**level
        noise = Image.fromarray(rng.integers(0, 255, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), float) / level
    low, high = total.min(), total.max()
    return Image.fromarray(((total - low) / (high - low) * 255).astype(np.uint8))


def calibrate_dvae(encoder: Any, images: np.ndarray, seed: int = 0) -> None:
    """dall_e's Encoder, in place."""
    import dall_e

    def run(part: Tensor) -> Tensor:
        return encoder.blocks[:-1](dall_e.map_pixels(part))

    gain = next(m.post_gain for m in encoder.modules() if hasattr(m, "post_gain"))
    branches = {m.res_path.conv_4 for m in encoder.modules() if hasattr(m, "post_gain")}
    with normalised(encoder.blocks[:-1], lambda layer: 1 / gain if layer in branches else 1.0):
        run(_unit(images[:LAYERS_FROM]))
    features = torch.cat([_flat(run(_unit(part)).relu()) for part in _parts(images)])
    directions, mean = _main_directions(features, DIRECTIONS)
    rows = _drawn(features, encoder.vocab_size, seed)
    prototypes = (features[rows] - mean) @ directions  # [codes, directions]
    repeated = torch.arange(len(rows)) >= len(features)  # few pictures: neighbours of places, not the same again
    noise = torch.randn(prototypes.shape, generator=torch.Generator().manual_seed(seed))
    prototypes += 0.5 * noise * repeated[:, None]
    weight = prototypes @ directions.t()
    head = encoder.blocks.output.conv
    head.w.data = (weight / DIRECTIONS**0.5)[:, :, None, None].contiguous()
    head.b.data = (-(weight @ mean) - prototypes.square().sum(1) / 2) / DIRECTIONS**0.5


def calibrate_vqgan(encoder: Any, quant_conv: Any, codebook: Tensor, images: np.ndarray, seed: int = 0) -> None:
    """taming's Encoder, its quant_conv and its codebook [codes, d], in place."""

    def run(part: Tensor) -> Tensor:
        return quant_conv(encoder(part * 2 - 1))

    with normalised(nn.ModuleList([encoder, quant_conv])):
        run(_unit(images[:LAYERS_FROM]))
    latents = torch.cat([_flat(run(_unit(part))) for part in _parts(images)])
    codebook.copy_(latents[_drawn(latents, len(codebook), seed)])


def calibrate_sdvae(autoencoder: Any, images: np.ndarray) -> None:
    """diffusers' AutoencoderKL, in place."""

    def run(part: Tensor) -> Tensor:
        return autoencoder.quant_conv(autoencoder.encoder(part * 2 - 1))

    with normalised(nn.ModuleList([autoencoder.encoder, autoencoder.quant_conv])):
        run(_unit(images[:LAYERS_FROM]))
    channels = autoencoder.config.latent_channels
    means = torch.cat([_flat(run(_unit(part)))[:, :channels] for part in _parts(images)])
    directions, mean = _main_directions(means, channels)
    last, scale = autoencoder.quant_conv, autoencoder.config.scaling_factor
    matrix = directions.t() / scale  # whitened, then as far from 1 as diffusers' scale says
    weight, bias = last.weight.data, last.bias.data
    weight[:channels] = torch.einsum("ab,bcxy->acxy", matrix, weight[:channels])
    bias[:channels] = matrix @ (bias[:channels] - mean)


@contextmanager
def normalised(module: nn.Module, spread: Callable[[nn.Module], float] = lambda layer: 1.0) -> Iterator[None]:
    """During the next forward pass every convolution is set so that its channels have mean 0 and this deviation."""

    def hook(layer: nn.Module, _: Any, out: Tensor) -> Tensor:
        mean, deviation = out.mean((0, 2, 3)), out.std((0, 2, 3)).clamp_min(1e-6) / spread(layer)
        weight, bias = (layer.w, layer.b) if hasattr(layer, "w") else (layer.weight, layer.bias)
        weight.data = weight.data / deviation[:, None, None, None]
        bias.data = (bias.data - mean) / deviation
        return (out - mean[:, None, None]) / deviation[:, None, None]

    def is_convolution(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Conv2d) or (hasattr(layer, "w") and hasattr(layer, "kw"))

    handles = [layer.register_forward_hook(hook) for layer in module.modules() if is_convolution(layer)]
    with torch.inference_mode(False), torch.no_grad():
        yield
    for handle in handles:
        handle.remove()


def margins(scores: Tensor) -> Tensor:
    """How far the best of each row is above the second: [m, codes] -> [m]."""
    two = scores.topk(2, dim=1).values
    return two[:, 0] - two[:, 1]


def _unit(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).float() / 255


def _parts(images: np.ndarray) -> list[np.ndarray]:
    return [images[start : start + 4] for start in range(0, len(images), 4)]


def _flat(maps: Tensor) -> Tensor:
    """[n, c, h, w] -> [n h w, c]."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _main_directions(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whitening of the strongest directions, [c, count], and the mean [c]."""
    mean = vectors.mean(0)
    _, lengths, directions = torch.linalg.svd((vectors - mean)[:: max(1, len(vectors) // 2048)], full_matrices=False)
    spread = lengths[:count] / min(len(vectors), 2048) ** 0.5
    return directions[:count].t() / spread.clamp_min(1e-9), mean


def _drawn(vectors: Tensor, count: int, seed: int) -> Tensor:
    """Rows of `count` vectors, each once where there are enough."""
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(seed))
    return order.repeat(-(-count // len(vectors)))[:count]
