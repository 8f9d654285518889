"""How many CPUs this process may use: its affinity, which a scheduler sets, not the machine's core count."""

import os


def cores() -> int:
    """At least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
