"""How networks run on a CPU: quick convolutions, one picture at a time, compiled trunks, and what is said without."""

import copy
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibrated_weights import calibrate_dvae, margins, pictures
from torch import nn

from toto.tokenize.tokenizers import compiled
from toto.tokenize.tokenizers.bf16_kernels import has_instructions, kernels
from toto.tokenize.tokenizers.dvae_trunk import DVAETrunk, best_codes
from toto.tokenize.tokenizers.kept_memory import keep_memory
from toto.tokenize.tokenizers.running import Placement, Running
from toto.tokenize.tokenizers.winograd import Tiles, convolution

SIZE = 48 << 20  # bytes; glibc returns more than 32 MiB by default, and more than 64 MiB outside of its first heap
NEAR_TIE = 1e-4  # of a reference's best two logits
LAYERS = [(3, 64, 17, 30), (64, 128, 32, 32), (32, 256, 15, 18), (64, 512, 16, 16), (16, 512, 7, 9)]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return pictures(8, 64, seed=1)


@pytest.fixture(scope="module")
def network(images: np.ndarray) -> Any:
    """dall_e's encoder, small, calibrated, and its logits of the pictures."""
    import dall_e

    from toto.tokenize.tokenizers.dvae_net import load_dvae_encoder

    torch.manual_seed(0)
    encoder = dall_e.Encoder(n_hid=64, vocab_size=512)
    calibrate_dvae(encoder, pictures(8, 64))
    names = {".w": ".weight", ".b": ".bias"}
    net = load_dvae_encoder({name[:-2] + names[name[-2:]]: t for name, t in encoder.state_dict().items()})
    with torch.no_grad():
        return net, encoder(dall_e.map_pixels(torch.from_numpy(images).float() / 255))


def codes(head: torch.Tensor) -> np.ndarray:
    return best_codes(head).numpy()


@pytest.mark.parametrize(("inputs", "outputs", "height", "width"), LAYERS)
def test_quick_convolutions_give_what_float64_gives(inputs: int, outputs: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    x = torch.randn(1, inputs, height, width, generator=generator)
    with torch.no_grad():
        exact = copy.deepcopy(layer).double()(x.double())
        ways = [convolution(layer), Tiles(layer.weight, layer.bias, 2), Tiles(layer.weight, layer.bias, 4)]
        errors = [float((way(x) - exact).abs().max() / exact.std()) for way in ways]
    assert ways[0] is not layer
    assert max(errors) < 2e-4, errors


def test_only_plain_3x3_layers_are_replaced() -> None:
    for other in (nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)):
        assert convolution(other) is other


def test_dvae_codes_are_the_references_but_for_near_ties(network: Any, images: np.ndarray) -> None:
    net, logits = network
    found = Running(net, Placement("cpu", "fp32")).encode(images, codes)
    wanted, clear = logits.argmax(1).numpy(), (margins(logits.permute(0, 2, 3, 1).flatten(0, 2)) > NEAR_TIE).numpy()
    assert len(np.unique(wanted)) > 100
    assert (found == wanted).reshape(-1)[clear].all()


def test_the_trunk_takes_grids_that_are_no_whole_tiles(network: Any) -> None:
    net, _ = network
    x = torch.rand(1, 3, 72, 104)
    with torch.inference_mode():
        wanted = net.trunk(x)
        assert (DVAETrunk(net)(x) - wanted).abs().max() < 0.01 * wanted.std()


def test_neighbours_do_not_change_a_code(network: Any, images: np.ndarray) -> None:
    running = Running(network[0], Placement("cpu", "fp32"))
    together = running.encode(images, codes)
    turned = running.encode(images[::-1], codes)[::-1]
    alone = np.concatenate([running.encode(picture[None], codes) for picture in images])
    assert (together == alone).all()
    assert (together == turned).all()


def test_equal_logits_give_the_lowest_code() -> None:
    logits = torch.zeros(2, 1024, 3, 5)
    logits[1, [300, 301, 700]] = 1
    assert (best_codes(logits) == torch.tensor([0, 300])[:, None, None]).all()
    rough = torch.randint(0, 50, (2, 1024, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    assert (best_codes(rough).numpy() == rough.numpy().argmax(1)).all()


def test_bf16_runs_close_to_fp32_and_its_flips_are_counted(network: Any, images: np.ndarray) -> None:
    running, heads = Running(network[0], Placement("cpu", "bf16")), []

    def kept(head: torch.Tensor) -> np.ndarray:
        heads.append(head)
        return codes(head)

    flips = float((running.encode(images, kept) != running.encode_exact(images, kept)).mean())
    half, exact = (torch.cat(heads[i : i + len(images)]) for i in (0, len(images)))
    print(f"bf16 flips {flips:.2%}")
    assert 0 < (half - exact).norm() / exact.norm() < 0.2  # a tiny network, whose branches weigh as much as its path
    assert flips > 0


def test_two_compiled_layers_give_what_they_give_uncompiled(
    network: Any, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled.missing_compiler() is not None:
        pytest.skip("no C++ compiler here")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    net, logits = network
    with torch.inference_mode():
        layers = nn.Sequential(net.blocks[0], net.blocks[1][0])
        x = net.prepare(torch.from_numpy(images[:1]))
        torch.testing.assert_close(compiled.compiled(layers, "cpu")(x), layers(x), rtol=1e-4, atol=1e-4)


def test_without_a_compiler_one_line_says_what_is_lost(
    network: Any,
    images: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from torch._inductor import cpp_builder

    for found_before in (cpp_builder.cpp_compiler_search, kernels):
        found_before.cache_clear()
    monkeypatch.setenv("PATH", "")
    running = Running(network[0], Placement("cpu", "bf16", compile=True))
    kernels.cache_clear()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no C++ compiler was found" in said
    assert running.encode(images[:1], codes).shape == (1, 8, 8)


@pytest.mark.skipif(not has_instructions(), reason="no processor for these kernels")
@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"exit 1", "exit status 1"),
        (b"printf 'erreur n\\260 3\\n' >&2; exit 1", "erreur n"),  # not UTF-8
        (b"exit 0", "bf16_kernels.so"),  # no library
        (b'echo "" | gcc -shared -x c - -o "${@: -1}"', "undefined symbol"),  # one without the functions
    ],
)
def test_a_compiler_that_fails_is_told_and_the_kernels_are_left_out(
    body: bytes, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_bytes(b"#!/bin/bash\n" + body)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    kernels.cache_clear()
    try:
        assert kernels() is None and kernels() is None
    finally:
        kernels.cache_clear()
    said = capsys.readouterr().err
    assert said.startswith("tokenizer: ") and said.count("\n") == 1 and "bf16 goes through torch.compile" in said
    assert told in said


def test_compile_auto_means_bf16_where_the_processor_has_it() -> None:
    def placed(**spec: str) -> bool:
        return Placement.of({"name": "dvae", **spec}, "cpu").compile

    assert placed(precision="bf16") == compiled.computes_in_bf16()
    assert placed(precision="bf16", compile="on")
    assert not placed(precision="bf16", compile="off")
    assert not placed(precision="fp32", compile="on"), "float32 on a CPU is quicker uncompiled"


@pytest.mark.skipif(not keep_memory(), reason="the C library keeps no large blocks")
def test_memory_of_large_results_is_used_again() -> None:
    def fresh_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        bytearray(SIZE)  # by malloc alone: aligned blocks find their place again only after a few rounds
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    fresh_pages()
    assert min(fresh_pages() for _ in range(3)) < 1000 < SIZE // resource.getpagesize()
