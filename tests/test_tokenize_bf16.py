"""Networks in bf16 by our own kernels: exact where bf16 holds the numbers, else near float32; best logits exact."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from calibrated_weights import calibrate_dvae, pictures
from torch import Tensor, nn

from toto.tokenize.tokenizers.autoencoder_arithmetic import DIFFUSERS, TAMING, Arithmetic
from toto.tokenize.tokenizers.autoencoder_bf16 import AutoencoderInBf16
from toto.tokenize.tokenizers.autoencoder_net import AutoencoderEncoder, AutoencoderSize
from toto.tokenize.tokenizers.bf16_kernels import Convolution, Largest, Product, compiler, has_instructions
from toto.tokenize.tokenizers.dvae_bf16 import DVAEInBf16
from toto.tokenize.tokenizers.dvae_net import DVAEEncoder, DVAESize, load_dvae_encoder
from toto.tokenize.tokenizers.dvae_trunk import best_codes
from toto.tokenize.tokenizers.running import Placement, Running

pytestmark = pytest.mark.skipif(  # where both are there, kernels that do not compile fail
    not has_instructions() or compiler() is None, reason="needs AVX512_BF16, no AMX, and a C++ compiler"
)

SIDE = 64


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
@torch.no_grad()
def net() -> DVAEEncoder:
    """dall_e's encoder, small and calibrated."""
    import dall_e

    torch.manual_seed(0)
    encoder = dall_e.Encoder(n_hid=64, vocab_size=512)
    calibrate_dvae(encoder, pictures(8, SIDE))
    names = {".w": ".weight", ".b": ".bias"}
    return load_dvae_encoder({name[:-2] + names[name[-2:]]: t for name, t in encoder.state_dict().items()})


def whole(*shape: int, most: int, seed: int) -> Tensor:
    """float32 whole numbers of -most … most."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 16, 16), (7, 147, 64), (300, 48, 96), (263, 1056, 128)])
def test_products_of_numbers_that_bf16_holds_are_exact(rows: int, inputs: int, outputs: int, relu: bool) -> None:
    x, weight = whole(rows, inputs, most=100, seed=0), whole(outputs, inputs, most=30, seed=1)
    bias, path = whole(outputs, most=9, seed=2), whole(rows, outputs, most=9, seed=3)
    wanted = (x.relu() if relu else x) @ weight.t() + bias
    product = Product(weight, bias)
    assert (product(x, relu=relu) == wanted).all()
    assert (product(x, relu=relu, add_to=path.clone()) == wanted + path).all()


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(16, 16, 1, 1), (32, 48, 17, 30), (16, 64, 8, 5), (1056, 32, 3, 4)])
def test_convolutions_of_numbers_that_bf16_holds_are_exact(shape: tuple[int, int, int, int], relu: bool) -> None:
    inputs, outputs, height, width = shape
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    layer.weight.copy_(4 * whole(*layer.weight.shape, most=3, seed=0))  # transformed they are quarters of sums of nine
    layer.bias.copy_(whole(outputs, most=9, seed=1))
    x = whole(height, width, inputs, most=30, seed=2)
    wanted = layer((x.relu() if relu else x).permute(2, 0, 1)[None])[0].permute(1, 2, 0)
    assert (Convolution(layer)(x, relu=relu) == wanted).all()


def test_layers_are_nearer_to_float32_than_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    layer, last = nn.Conv2d(256, 64, 3, padding=1), nn.Conv2d(64, 256, 1)
    x = torch.randn(1, 256, 24, 24, generator=generator)
    found = Convolution(layer)(x[0].permute(1, 2, 0)).permute(2, 0, 1)[None]
    assert error(found, layer(x)) < 0.005 < 2 * error(copy.deepcopy(layer).bfloat16()(x.bfloat16()).float(), layer(x))
    y = torch.randn(1, 64, 24, 24, generator=generator)
    product = Product(last.weight[:, :, 0, 0], last.bias)(y[0].flatten(1).t()).t().view(1, 256, 24, 24)
    assert error(product, last(y)) < error(copy.deepcopy(last).bfloat16()(y.bfloat16()).float(), last(y))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_logit_is_float32s_among_codes_that_bf16_cannot_tell_apart(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(100, 256, generator=generator)
    weight = torch.randn(256, generator=generator) + 1e-3 * torch.randn(512, 256, generator=generator)
    bias = 1e-3 * torch.randn(512, generator=generator)
    exact = (x.double() @ weight.double().t() + bias.double()).float()
    rounded, largest = Product(weight, bias)(x), Largest(weight, bias)
    bound = largest.slack(x) @ largest.sizes
    assert ((rounded - exact).abs() <= bound).all()
    assert (rounded.argmax(1) != exact.argmax(1)).float().mean() > 0.1, "bf16 alone would do"
    best = largest(x)
    chosen = exact.gather(1, best.argmax(1, keepdim=True))[:, 0]
    assert (exact.amax(1) - chosen).max() < 1e-4, "of float32's own rounding"
    torch.testing.assert_close(best.amax(1), chosen, rtol=1e-6, atol=1e-4)


def test_logits_that_cannot_be_the_best_are_not_computed_again() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(64, 256, generator=generator), torch.randn(512, 256, generator=generator)
    bias = torch.zeros(512)
    assert (Largest(weight, bias)(x) != Product(weight, bias)(x)).float().mean() < 0.01


@pytest.mark.parametrize(("height", "width"), [(64, 64), (72, 104), (24, 40)])
def test_the_trunk_is_nearer_to_float32_than_torchs_own(net: DVAEEncoder, height: int, width: int) -> None:
    x = net.prepare(torch.from_numpy(pictures(1, 104, seed=2)[:, :, :height, :width].copy()))
    wanted, half = net.trunk(x), copy.deepcopy(net).bfloat16()
    quick = DVAEInBf16(net)
    features = quick.trunk(x)
    assert features.shape == wanted.shape
    assert error(features, wanted) < 0.5 * error(half.trunk(x.bfloat16()).float(), wanted)
    assert (best_codes(quick.head(wanted)) == best_codes(net.head(wanted))).all()


@pytest.mark.parametrize("arithmetic", [TAMING, DIFFUSERS])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (54, 44)])
def test_autoencoders_are_nearer_to_float32_than_torchs_own(height: int, width: int, arithmetic: Arithmetic) -> None:
    torch.manual_seed(0)
    net = AutoencoderEncoder(AutoencoderSize(32, (32, 64, 96), 1, frozenset({2}), 8, 8, 8), arithmetic)
    assert AutoencoderInBf16.takes(net)
    x = net.prepare(torch.from_numpy(pictures(1, 64, seed=2)[:, :, :height, :width].copy()))
    wanted, half = net.trunk(x), copy.deepcopy(net).bfloat16()
    features = AutoencoderInBf16(net).trunk(x)
    assert features.shape == wanted.shape
    assert error(features, wanted) < error(half.trunk(x.bfloat16()).float(), wanted) < 0.05
    assert (net.trunk(x) == wanted).all(), "the network itself stays"


def codes(logits: Tensor) -> np.ndarray:
    return best_codes(logits).numpy()


def test_neighbours_do_not_change_a_code_in_bf16_either(net: DVAEEncoder) -> None:
    running, images = Running(net, Placement("cpu", "bf16", compile=True)), pictures(4, SIDE, seed=1)
    together = running.encode(images, codes)
    alone = np.concatenate([running.encode(picture[None], codes) for picture in images[::-1]])[::-1]
    assert (together == alone).all()


def test_fewer_codes_flip_than_in_torchs_own_bf16(net: DVAEEncoder) -> None:
    images = pictures(8, SIDE, seed=1)
    ways = [Running(net, Placement("cpu", "bf16", compile=own)) for own in (True, False)]
    exact = ways[0].encode_exact(images, codes)
    ours, torchs = [float((way.encode(images, codes) != exact).mean()) for way in ways]
    assert 0 < ours < 0.8 * torchs, f"{ours:.1%}, {torchs:.1%}"


def test_networks_that_do_not_fill_registers_are_left_to_torch(net: DVAEEncoder) -> None:
    assert DVAEInBf16.takes(net)
    assert not DVAEInBf16.takes(DVAEEncoder(DVAESize(hidden=32, blocks=1, vocab_size=512)))
    assert not AutoencoderInBf16.takes(net)
