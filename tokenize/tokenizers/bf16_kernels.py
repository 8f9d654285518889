"""Matrix products and 3×3 convolutions that multiply in bf16 and add in float32, on one thread with AVX512_BF16.

    float32 [h, w, c] ─tiles─▶ transformed, rounded to bf16 ─products─▶ transformed in float32 ─▶ float32 [h, w, o]

torch's own bf16 layers round every result; here only what is multiplied is rounded, and 3×3 layers take 2.25 times
fewer multiplications (winograd.py's tiles of 2×2). Both are in bf16_kernels.cpp, which each process compiles when it
first needs it: 1 second, by g++ from 10 on or clang++.
"""

import ctypes
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from toto.tokenize.tokenizers.remarks import remark
from toto.tokenize.tokenizers.winograd import FORMS

LANES = 16  # channels of a register
SOURCE = Path(__file__).with_suffix(".cpp")
FLAGS = ("-std=c++17", "-O3", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512bf16", "-mfma", "-shared", "-fPIC")
_POINTER, _SIZE, _YES = ctypes.c_void_p, ctypes.c_long, ctypes.c_bool
ARGUMENTS = {
    "product": (_POINTER, _SIZE, _SIZE, _YES, _POINTER, _POINTER, _YES, _POINTER, _SIZE),
    "winograd": (_POINTER, _SIZE, _SIZE, _SIZE, _YES, _POINTER, _POINTER, _POINTER, _SIZE),
    "settle": (_POINTER, _SIZE, _SIZE, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _SIZE),
}


def has_instructions() -> bool:
    """Whether this CPU has AVX512_BF16 and no AMX, with which direct convolutions may be faster: not measured."""
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def compiler() -> str | None:
    """The C++ compiler that is used: CXX, g++ or clang++."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    return next((path for name in names if name and (path := shutil.which(name))), None)


@cache
def kernels() -> ctypes.CDLL | None:
    """The compiled functions; None on another CPU, without a C++ compiler, or, said on stderr, with one that fails."""
    path = compiler()
    if not has_instructions() or path is None:
        return None
    try:
        return _compiled(path)
    except (OSError, AttributeError, subprocess.CalledProcessError) as error:
        # an old compiler, no folder for temporary files, or one that nothing runs from
        told = str(error)
        if isinstance(error, subprocess.CalledProcessError):
            told = error.stderr.strip() or f"exit status {error.returncode}"
        why = told.splitlines()[0][:200]
        remark(f"{path}: {why}: bf16 goes through torch.compile")
        return None


def _compiled(path: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "bf16_kernels.so"
        command = [path, *FLAGS, str(SOURCE), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")
        loaded = ctypes.CDLL(str(library))
    for name, arguments in ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = arguments, None
    return loaded


class Product:
    """x weights + bias."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """float32 [o, c] with o in whole registers, float32 [o]."""
        self._inputs, self._outputs = weight.shape[1], weight.shape[0]
        self._weights, self._bias = _panels(weight.t()), bias.contiguous()

    def __call__(self, x: Tensor, relu: bool = False, add_to: Tensor | None = None) -> Tensor:
        """float32 [rows, c] -> [rows, o]: new, or added to one in place; relu: of x first."""
        result = x.new_empty(len(x), self._outputs) if add_to is None else add_to
        x, add = x.contiguous(), add_to is not None
        assert result.is_contiguous() and x.shape[1] == self._inputs and result.shape == (len(x), self._outputs)
        pointers = self._weights.data_ptr(), self._bias.data_ptr(), add, result.data_ptr()
        _loaded().product(x.data_ptr(), len(x), self._inputs, relu, *pointers, self._outputs)
        return result


class Convolution:
    """A 3×3 layer of stride 1 and padding 1, whose channels are whole registers."""

    def __init__(self, layer: nn.Conv2d) -> None:
        assert layer.bias is not None and layer.in_channels % LANES == 0
        self._inputs, self._outputs = layer.in_channels, layer.out_channels
        g = torch.tensor(FORMS[2][0], dtype=torch.float64)
        places = torch.kron(g, g) @ layer.weight.double().permute(2, 3, 1, 0).flatten(0, 1).flatten(1)
        self._weights, self._bias = _panels(places.view(-1, self._inputs, self._outputs)), layer.bias.contiguous()

    def __call__(self, x: Tensor, relu: bool = False) -> Tensor:
        """float32 [h, w, c] -> [h, w, o]; relu: of x first."""
        x = x.contiguous()
        height, width, inputs = x.shape
        assert inputs == self._inputs
        result = x.new_empty(height, width, self._outputs)
        pointers = self._weights.data_ptr(), self._bias.data_ptr(), result.data_ptr()
        _loaded().winograd(x.data_ptr(), height, width, inputs, relu, *pointers, self._outputs)
        return result


class Largest:
    """Logits x weights + bias, of which those that may be a row's largest are computed again in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """float32 [o, c] with both in whole registers, float32 [o]."""
        assert weight.shape[1] % LANES == 0
        self._product = Product(weight, bias)
        self._weight, self._bias = weight.contiguous(), bias.contiguous()
        self.sizes = torch.stack([_lengths(weight), _lengths(weight - _rounded(weight))])  # [2, o]

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [rows, c] -> [rows, o]."""
        x = x.contiguous()
        logits, slack = self._product(x), self.slack(x)
        pointers = self._weight.data_ptr(), self._bias.data_ptr(), slack.data_ptr(), self.sizes.data_ptr()
        _loaded().settle(x.data_ptr(), *x.shape, *pointers, logits.data_ptr(), logits.shape[1])
        return logits

    def slack(self, x: Tensor) -> Tensor:
        """float32 [rows, 2]; times `sizes`, [rows, o], it is what no logit's error exceeds, but for rounding its bias.

        With x̃ and w̃ in bf16, x̃ w̃ - x w = (x̃ - x) w + x̃ (w̃ - w), each at most the product of the lengths (Cauchy and
        Schwarz). Adding c products in float32 has an error of at most c 2⁻²³ |x| |w|, in both computations.
        """
        half = _rounded(x)
        adding = 2 * x.shape[1] * 2.0**-23 * _lengths(x)
        return torch.stack([_lengths(half - x) + adding, _lengths(half)], 1)


def _loaded() -> ctypes.CDLL:
    loaded = kernels()
    assert loaded is not None, "kernels() was None: nobody should have made this object"
    return loaded


def _rounded(x: Tensor) -> Tensor:
    return x.bfloat16().float()


def _lengths(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1)


def _panels(weights: Tensor) -> Tensor:
    """[…, c, o] -> bf16 […, panels, pairs, outputs of a panel, 2]; an odd c is filled up with zeros."""
    *_, c, o = weights.shape
    width = next(lanes for lanes in (64, 32, LANES) if o % lanes == 0)
    even = nn.functional.pad(weights, (0, 0, 0, c % 2)).bfloat16()
    return even.unflatten(-1, (-1, width)).unflatten(-3, (-1, 2)).movedim(-2, -4).movedim(-2, -1).contiguous()
