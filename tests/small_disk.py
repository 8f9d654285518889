"""A small file system of a test's own, which can be filled up or made read-only without harm to the machine."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Disk:
    """A file system in memory."""

    place: Path

    def remount(self, options: str) -> None:
        """Changes its size, or whether it can be written."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.place)], check=True)

    def fill(self, left: int) -> Path:
        """Leaves about so many bytes free; remove the file that it returns to have the rest back."""
        filler, state = self.place / "filler", os.statvfs(self.place)
        filler.write_bytes(bytes(state.f_bavail * state.f_frsize - left))
        return filler


@pytest.fixture(name="disk")
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    """16 MB; the test is skipped where nothing can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system, which takes root: {mounted.stderr.strip()}")
    try:
        yield Disk(place)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
