"""Clips of which two close a unit when they are encoded at 128 px, and what one `local` run makes of them."""

from pathlib import Path

from clips import tokenize, write_clips
from drill_tokenize import Content, content

from toto import Dataset

CODES = ("--tokenizer", "dct-512", "--set", "datasets.folder.resolution=128")  # 256 codes a frame: 512 frames a unit
UNITS = 5


def write_units(folder: Path) -> Path:
    """Clips of UNITS units."""
    return write_clips(folder, 2 * UNITS, 260)


def local_content(videos: Path, out: Path) -> Content:
    """What one `local` run makes of them."""
    done = tokenize(videos, out, *CODES)
    assert done.returncode == 0, done.stderr
    assert Dataset(out).info["units"] == {"committed": UNITS, "planned": UNITS}
    return content(out)
