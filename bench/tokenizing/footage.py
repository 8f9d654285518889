"""Footage for whole jobs: many files, of which only a few differ."""

from pathlib import Path

from toto.tokenize.sample_footage import write_clip


def write_clips(folder: Path, count: int, seconds: float, different: int = 8) -> list[Path]:
    """`count` clips of 640×360; `different` of them are encoded, the others are copies under other names."""
    made = [write_clip(folder / f"{i:05d}.mp4", seconds, seed=i) for i in range(min(count, different))]
    for i in range(len(made), count):
        path = folder / f"{i:05d}.mp4"
        path.write_bytes(made[i % different].read_bytes())
        made.append(path)
    return made
