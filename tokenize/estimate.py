"""How much work sources are, before they are decoded: kept frames of each, from container headers.

Up to 256 sources are probed; of a longer list a keyed sample, whose frames per byte stand for the rest. The same
files give the same estimate, so they are cut into the same units.
"""

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from toto.shards.protocols import beside_grid
from toto.tokenize.decoder import Decoder
from toto.tokenize.job import Job
from toto.tokenize.sampling import DEFAULT_RATE
from toto.tokenize.sources.base import Source
from toto.tokenize.sources.source_table import SourceTable

SAMPLE = 256
PROBE_TIMEOUT_S, PROBE_MEMORY_MB = 30.0, 4096  # the same for every job: what is planned must not hang on them
LEAST_BYTES_PER_FRAME = 8  # a frame that only repeats the one before, and its place in the container's index
FALLBACK_BYTES_PER_FRAME = 4000  # about 1 Mb/s at 30 frames/s, where no header of the sample can be read


@dataclass(frozen=True)
class Estimator:
    """Kept and decoded frames of sources under the sampling rule of a job."""

    job: Job

    def kept_frames(self, sources: Sequence[Source]) -> np.ndarray:
        """int64: estimated kept frames of each source, at least 1."""
        listed = SourceTable.of(sources)
        decoded = self.decoded_frames(listed)
        frames = decoded.astype(np.int64)
        settings = self.job.settings
        if settings["uniform"]:
            kept = np.full(len(listed), int(settings["uniform"]))
        else:
            step = settings["stride"] or (max(1.0, DEFAULT_RATE / settings["fps"]) if settings["fps"] else 1)
            kept = -(-frames // int(step))
            for split in set(listed.split_names) if settings.get("protocols") else ():
                beside = sum(protocol.clips * protocol.frames for protocol in beside_grid(settings, split))
                here = listed.is_word("split", split)
                kept[here] = np.minimum(kept + beside, np.maximum(kept, frames))[here]
        kept[decoded <= 1] = 1
        kept = np.minimum(kept, settings.get("most_frames", kept))
        if listed.has_moments:
            own = pc.list_value_length(listed.columns["moments"]).fill_null(-1).to_numpy()
            kept[own >= 0] = np.maximum(own[own >= 0], 1)
        return kept

    def decoded_frames(self, sources: Sequence[Source]) -> np.ndarray:
        """float64: estimated frames of each source, at least 1; images have 1."""
        listed = SourceTable.of(sources)
        size = listed.columns["size"].to_numpy()
        is_video = listed.is_word("kind", "video")
        at = _sample(listed, np.flatnonzero(is_video & (size > 0)))
        probed = self._probe(listed.take(at))
        known = {
            row: min(found, max(1, int(size[row]) // LEAST_BYTES_PER_FRAME))  # headers lie
            for row, found in zip(at.tolist(), probed, strict=True)
            if found is not None
        }
        rows = np.array([*known], np.int64)
        frames, bytes_known = np.array([*known.values()], np.float64), int(size[rows].sum())
        per_byte = sum(known.values()) / bytes_known if bytes_known else 1 / FALLBACK_BYTES_PER_FRAME
        found = np.where(is_video, size * per_byte, 1.0)
        found[rows] = frames
        return np.maximum(found, 1.0)

    def _probe(self, sources: SourceTable) -> list[float | None]:
        """Frames by headers, read where strangers' files are read: in a decoder's child, which may hang or crash."""
        with Decoder(PROBE_TIMEOUT_S, PROBE_MEMORY_MB) as decoder:
            found = [decoder.probe(source.uri, source.kind) for source in sources]
        return [None if probe is None else probe.frames for probe in found]


def _sample(listed: SourceTable, rows: np.ndarray) -> np.ndarray:
    """At most SAMPLE of these rows, chosen by their keys."""
    if len(rows) <= SAMPLE:
        return rows
    keys = (source.key for source in listed.take(rows))
    digests = ((hashlib.sha256(key.encode()).digest(), row) for key, row in zip(keys, rows.tolist(), strict=True))
    return np.array([row for _, row in heapq.nsmallest(SAMPLE, digests)])
