"""The machine that a figure was measured on, in words, and the versions it was measured with."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from toto.affinity import cores

PACKAGES = ("numpy", "pyarrow", "av", "pillow", "ray", "torch")


def cpu() -> str:
    """The processor's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def memory_gib() -> float:
    """Installed memory, GiB; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError):
        return 0.0


def facts() -> list[tuple[str, str]]:
    """What a reader needs to know of the machine, as (what, value)."""
    rows = [
        ("processor", cpu()),
        ("cores used", f"{cores()} of {os.cpu_count()}"),
        ("memory", f"{memory_gib():.0f} GiB" if memory_gib() else ""),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("Python", sys.version.split()[0]),
        ("packages", ", ".join(f"{name} {found}" for name in PACKAGES if (found := _installed(name)))),
    ]
    return [(what, value) for what, value in rows if value]


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
