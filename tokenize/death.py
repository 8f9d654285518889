"""Ray's word on why an actor died, made short."""

import re

from ray.exceptions import OutOfMemoryError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def one_line(death: Exception) -> str:
    """At most 300 characters of what Ray says."""
    return " ".join(_COLOURS.sub("", str(death)).split())[:300]


def out_of_memory(death: Exception) -> bool:
    """Whether Ray's memory monitor ended a worker; a kill by the kernel looks like any other."""
    return isinstance(death, OutOfMemoryError) or "memory monitor" in str(death).lower()
