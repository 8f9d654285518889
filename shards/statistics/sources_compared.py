"""Which sources two sides share: by key, and, where the keys differ, by what the files themselves are like.

A fingerprint is a video's size in bytes, codec, width, height, frame rate, decoded frames and duration. It counts only
where it is unique in both sides. Images have none: among thousands some have one size by chance.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

FACTS = ("size", "codec", "width", "height", "fps", "frames_decoded", "duration_s")
EXAMPLES = 20


@dataclass(frozen=True)
class Sources:
    """What the results of two sides say of their sources; only those that gave rows count."""

    both: pa.Array  # keys
    only_a: pa.Array
    only_b: pa.Array
    same_file: list[tuple[str, str]]  # key in a, key in b: other keys, the same fingerprint, of videos


def compare_sources(a: pa.Table, b: pa.Table) -> Sources:
    """From the final per-source results of both sides (SOURCES_SCHEMA)."""
    a, b = (table.filter(pc.equal(table["status"], "ok")) for table in (a, b))
    keys_a, keys_b = (table["key"].combine_chunks() for table in (a, b))
    in_b, in_a = pc.is_in(keys_a, keys_b), pc.is_in(keys_b, keys_a)
    alone_a, alone_b = a.filter(pc.invert(in_b)), b.filter(pc.invert(in_a))
    return Sources(keys_a.filter(in_b), alone_a["key"].combine_chunks(), alone_b["key"].combine_chunks(), _same_files(
        alone_a, alone_b
    ))  # fmt: skip


def _same_files(a: pa.Table, b: pa.Table) -> list[tuple[str, str]]:
    prints_a, prints_b = fingerprints(a), fingerprints(b)
    (once_a, at_a), (once_b, at_b) = _unique(prints_a), _unique(prints_b)
    _, i, j = np.intersect1d(once_a, once_b, assume_unique=True, return_indices=True)
    keys_a, keys_b = a["key"].take(at_a[i]).to_pylist(), b["key"].take(at_b[j]).to_pylist()
    return sorted(zip(keys_a, keys_b, strict=True))


def fingerprints(table: pa.Table) -> np.ndarray:
    """uint64 for each source; 0 for images, and where the file's size is not known."""
    columns = [table[name].to_pylist() for name in FACTS]
    lines = zip(table["kind"].to_pylist(), *columns, strict=True)
    hashes = (
        xxhash.xxh3_64_intdigest(repr(facts).encode()) if kind == "video" and facts[0] > 0 else 0
        for kind, *facts in lines
    )
    return np.fromiter(hashes, np.uint64, table.num_rows)


def _unique(prints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints that stand once, and where; 0 is none."""
    values, first, times = np.unique(prints, return_index=True, return_counts=True)
    kept = (times == 1) & (values != 0)
    return values[kept], first[kept]
