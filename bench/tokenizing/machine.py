"""The machine that figures are of, in one line: processor, what it can do in bf16, cores of this process, versions."""

import platform
from pathlib import Path

import av
import torch

from toto.affinity import cores

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def cpu_flags() -> set[str]:
    """What the processor says it can do; nothing where the system does not tell."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return set(next((line.split(":")[1] for line in lines if line.startswith("flags")), "").split())


def has_fast_bf16() -> bool:
    """Whether bf16 has instructions of its own here; without them it is slower than fp32."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags()) or torch.cuda.is_available()


def words() -> str:
    """One line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    known = " ".join(flag for flag in FLAGS if flag in cpu_flags()) or "no known flags"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name} ({known}), {cores()} cores, {gpu}; torch {torch.__version__}, PyAV {av.__version__}"
