"""What a network frees on a CPU stays with its process, to be used again: fresh pages cost a fourth of the time.

glibc gives blocks of more than 32 MB back to the kernel when they are freed, which clears each page of the next one; a
layer's result of VQGAN is 33.5 MB. Measured on an AMD Zen 4, float32, one picture of 256 px: VQGAN 2.06 to 1.53 s and
140 MB more at its peak, SD-VAE 3.3 to 2.8 s and 190 MB, reached by the tenth picture. At 128 px the dVAE's results are
smaller: no change. Threads other than the main one keep blocks up to 64 MiB.
"""

import ctypes
import os
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # M_… of glibc's malloc.h
MAPPED_FROM = 1 << 30  # bytes of a block
RETURNED_FROM = 2**31 - 1  # free bytes at the heap's end; the most that mallopt takes


@cache
def keep_memory() -> bool:
    """From now on in this process. False, and nothing is changed, without glibc, with one that sets no such threshold
    (before 2.35), or where the environment sets its own."""
    library = ctypes.CDLL(None)
    told = "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", "")
    if told or not hasattr(library, "gnu_get_libc_version") or not library.mallopt(MMAP_THRESHOLD, MAPPED_FROM):
        return False
    return bool(library.mallopt(TRIM_THRESHOLD, RETURNED_FROM))
