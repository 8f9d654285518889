"""A network's trunk through torch.compile, where that pays: bf16, on a GPU, or on a CPU without bf16_kernels.py.

The first process of a machine compiles for 10 to 100 seconds, later ones load most of it from torch's cache on disk
(TORCHINDUCTOR_CACHE_DIR). Compiling on a CPU needs a C++ compiler, on a GPU a C compiler; without one the network runs
as it is, and one line on stderr says what is lost. In float32 on a CPU nothing is compiled: the dVAE is faster by
winograd.py, and the others keep the bits of their packages.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from toto.tokenize.tokenizers.remarks import remark

Trunk = Callable[[Tensor], Tensor]


def computes_in_bf16() -> bool:
    """Whether this CPU has instructions for bf16; without them it is slower than float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def compiled(trunk: Trunk, device: str) -> Trunk:
    """The trunk, compiled at its first call for each shape of pictures; itself where that cannot work."""
    missing = missing_compiler() if device == "cpu" else None
    if missing is not None:
        return _uncompiled(trunk, missing)
    quick = torch.compile(trunk, dynamic=False, options={"freezing": True} if device == "cpu" else None)
    ways = [quick]

    def run(prepared: Tensor) -> Tensor:
        try:
            return ways[0](prepared)
        except torch._dynamo.exc.BackendCompilerFailed as error:  # no working C compiler for a GPU's kernels, mostly
            ways[0] = _uncompiled(trunk, str(error).splitlines()[0][:200])
            return trunk(prepared)

    return run


def missing_compiler() -> str | None:
    """Why nothing can be compiled on this CPU, or None."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return "no C++ compiler was found (CXX, g++, clang++)"
    return None


def _uncompiled(trunk: Trunk, why: str) -> Trunk:
    remark(f"{why}: its network runs uncompiled, at about half the speed")
    return trunk
