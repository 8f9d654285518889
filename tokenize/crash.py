"""Named points of the code path at which a test can kill the process: TOTO_CRASH_AT=after_shard, or after_shard:3.

The process sends itself SIGKILL when it reaches the point (the third time, in the second form), as a power cut would.
"""

import os
import signal
from collections import Counter

POINTS = (
    "after_annotations",
    "after_plan",
    "after_canary",
    "after_source",  # one source's rows are in the unfinished shard
    "after_shard_closed",  # the shard is complete under its temporary name
    "after_shard",
    "after_sources",
    "before_commit",  # both files were read back and agree
    "after_commit",
    "after_views",
    "after_manifest",
    "after_quarantine",
    "after_card",
    "before_dataset",
    "after_dataset",
)

_seen: Counter[str] = Counter()


def reached(point: str) -> None:
    """Says that the code is at a point; does nothing unless TOTO_CRASH_AT names it."""
    wanted, _, times = os.environ.get("TOTO_CRASH_AT", "").partition(":")
    if wanted != point:
        return
    _seen[point] += 1
    if _seen[point] == int(times or 1):
        os.kill(os.getpid(), signal.SIGKILL)
