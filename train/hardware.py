"""What a process computes on: its device, its threads, its memory, and how fast it could multiply at best.

MFU (model FLOPs utilisation) needs a peak. NVIDIA's data sheets give one for bf16 without sparsity; any other device
is measured once, by a large matrix product.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from toto.affinity import cores
from toto.errors import UsageError, UserError
from toto.gpus import PEAK_BF16
from toto.train.models.products import cpu_has_bf16, multiply

_MEASURED = {"cpu": (1024, 3), "cuda": (8192, 10)}  # device -> side of the matrices, repetitions


def choose_device(asked: str, local_rank: int = 0) -> torch.device:
    """`auto` takes a GPU where there is one; UsageError where the asked one is missing."""
    has_gpu = torch.cuda.is_available()
    if asked == "cuda" and not has_gpu:
        raise UsageError("--device cuda: torch sees no GPU here; use --device cpu, or install a CUDA build of torch")
    if asked == "cpu" or not has_gpu:
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def use_cores(local_processes: int = 1) -> None:
    """Shares the cores that this process may use among the processes of this machine; OMP_NUM_THREADS wins."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, cores() // local_processes))


def memory_bytes(device: torch.device) -> int:
    """Memory that is free for a model: of the GPU, or half of the machine's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@contextmanager
def memory_for(what: str, advice: str) -> Iterator[None]:
    """UserError where memory does not hold what is made inside; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        of_torch = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)  # on a GPU, on a CPU
        if not (of_torch or isinstance(error, MemoryError)):
            raise
        raise UserError(f"no memory for {what}; {advice}") from None


def faster_precision(device: torch.device) -> str:
    """`bf16`, or `fp32` where bf16 is slower, as on a CPU without instructions for it."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    if not cpu_has_bf16():
        return "fp32"
    return max(("fp32", "bf16"), key=lambda precision: _measure(device, precision, side=256))


def peak_flops(device: torch.device, precision: str) -> tuple[float, str]:
    """FLOP/s that the device could reach at most, and where that figure comes from."""
    if device.type == "cuda" and precision == "bf16":
        name = torch.cuda.get_device_name(device)
        for card, peak in PEAK_BF16.items():
            if card in name.replace("-", " ").split():
                return peak, f"data sheet of {card}, bf16"
    return _measure(device, precision), f"measured, {precision} matrix product"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16 compute over fp32 weights, or plain fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _measure(device: torch.device, precision: str, side: int | None = None) -> float:
    usual, repeats = _MEASURED[device.type]
    side = side or usual
    matrix = torch.ones(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    best = float("inf")
    for _ in range(repeats + 1):  # the first warms up
        started = time.perf_counter()
        multiply(matrix, matrix)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best
