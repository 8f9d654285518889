"""What the tests of pack, split, merge and import share: random datasets, rows as plain values, children to kill."""

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from token_world import Image, Video, write_tokens

from toto import Dataset
from toto.shards.rewrite.derive import Options
from toto.shards.store import open_store
from toto.shards.verify import verify

FACTS = {"vocab_size": 300, "patch": 8, "grid": [4, 6]}  # told of foreign codes, where a test says nothing else
QUIET = Options(workers=1, say=lambda text: None)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of `write_tokens`: a few videos of several runs and images, in small units and batches."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    views, splits = draw(st.integers(1, 2)), draw(st.sampled_from([("train",), ("train", "val")]))
    runs = draw(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=3), max_size=8))
    videos = [
        Video(f"{i:02d}/clip.mp4", rng.integers(0, 60, (sum(r), 2, 2)), splits[i % len(splits)], i % 3, views, tuple(r))
        for i, r in enumerate(runs)
    ]
    count = draw(st.integers(0 if videos else 1, 12))
    images = [
        Image(f"img/{i:02d}.png", rng.integers(0, 60, (2, 2)), splits[i % len(splits)], views=views)
        for i in range(count)
    ]
    sizes = {"unit_sources": draw(st.integers(1, 6)), "batch_bytes": draw(st.integers(1, 300))}
    return {"videos": videos, "images": images, **sizes}


def code_folder(root: Path, arrays: dict[str, np.ndarray], **facts: Any) -> Path:
    """Codes that somebody else made: a folder of .npy files with its metadata.json."""
    for name, array in arrays.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, array)
    (root / "metadata.json").write_text(json.dumps({**FACTS, **facts}))
    return root


def world(root: Path, sources: int = 24, **more: Any) -> Path:
    """A dataset of labelled videos, eight to a unit, a few rows to a batch."""
    rng = np.random.default_rng(0)
    videos = [
        Video(f"{i % 3}/{i:03d}.mp4", rng.integers(0, 60, (6 + i % 5, 4, 4)), "val" if i % 6 == 5 else "train", i % 2)
        for i in range(sources)
    ]
    return write_tokens(root, videos, **{"unit_sources": 8, "batch_bytes": 500, **more})


def rows(root: str | Path) -> Counter[tuple[Any, ...]]:
    """Split and every value of every row, however they are ordered: no hash of ours is asked."""
    return Counter((row.split, *map(_plain, astuple(row.record))) for row in Dataset(root).rows())


def results(root: str | Path) -> list[dict[str, Any]]:
    """The per-source results by key."""
    return sorted(Dataset(root).sources().to_pylist(), key=lambda line: line["key"])


def whole(root: str | Path) -> bool:
    """Whether `verify --deep` finds nothing."""
    problems = verify(open_store(root), deep=True).problems
    assert problems == []
    return True


def in_child(act: Callable[[], object]) -> multiprocessing.Process:
    """Starts a forked process that does this."""
    child = multiprocessing.get_context("fork").Process(target=act)
    child.start()
    return child


def killed_after(act: Callable[[], object], seconds: float) -> int:
    """Does this in a child that gets SIGKILL after so long; its exit code."""
    child = in_child(act)
    time.sleep(seconds)
    child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def killing_at(step: int) -> Options:
    """Options with which the process kills itself at the n-th step that it is told of."""
    steps = iter(range(1, 1 << 30))

    def reached(point: str) -> None:
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return Options(workers=1, say=lambda text: None, reached=reached)


def _plain(value: Any) -> Any:
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value
