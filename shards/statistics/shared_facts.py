"""Shared runs -> figures, and the worst pairs of sources with frame numbers and seconds."""

from typing import Any

import numpy as np

from toto.shards.dataset import Dataset
from toto.shards.row import Row
from toto.shards.statistics.shared_runs import Shared, source_pairs
from toto.shards.statistics.shingles import Search

WORST = 20  # pairs of sources that are named
RECALL_FOR = (2, 4)  # times the shortest run


def shared_facts(found: Shared, datasets: list[Dataset], search: Search, missed: list[int]) -> dict[str, Any]:
    """As data; `missed`: rows of each side in which nothing can be found."""
    pairs = source_pairs(found.runs)
    return {
        "least_frames": search.frames,
        "every": search.every,
        "recall": {str(n): search.recall(n) for n in (search.frames, *(k * search.frames for k in RECALL_FOR))},
        "sources_a": len(found.sources[0]),
        "sources_b": len(found.sources[1]),
        "frames_a": found.frames[0],
        "frames_b": found.frames[1],
        "unsearched_a": missed[0],
        "unsearched_b": missed[1],
        "runs": len(found.runs),
        "runs_of_one_key": found.one_key,
        "source_pairs": len(pairs),
        "too_common": found.common,
        "complete": found.whole,
        "worst": [_worst(pair, found.runs, datasets) for pair in pairs[:WORST]],
    }


def _worst(pair: dict[str, Any], runs: np.ndarray, datasets: list[Dataset]) -> dict[str, Any]:
    longest = runs[pair["longest"]]
    return {
        "frames": pair["frames"],
        "runs": pair["runs"],
        "longest": int(longest["frames"]),
        **{
            side: _place(dataset.row(int(longest[f"row_{side}"])), longest[f"first_{side}"], longest[f"last_{side}"])
            for side, dataset in zip("ab", datasets, strict=True)
        },
    }


def _place(row: Row, first: np.integer[Any], last: np.integer[Any]) -> dict[str, Any]:
    """Where a run of frames is: source, run, decoded frames and seconds of its first and last frame."""
    ends = [int(first), int(last)]
    times = row.pts_us
    return {
        "source": row.source,
        "split": row.split,
        "run": int(row.run),
        "view": int(row.view),
        "frame_index": row.frame_index[ends].tolist(),
        "seconds": None if times is None else [round(float(times[i]) / 1e6, 3) for i in ends],
    }
