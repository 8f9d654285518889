"""How much work sources are, before they are decoded: kept frames of each, from container headers.

Up to 256 sources are probed; of a longer list a keyed sample, whose frames per byte stand for the rest. The same
files always give the same estimate, so they are cut into the same units.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from toto.tokenize.probe import Probe, probe
from toto.tokenize.sources.base import Source

SAMPLE = 256
FALLBACK_BYTES_PER_FRAME = 4000  # about 1 Mb/s at 30 frames/s, where no header of the sample can be read


@dataclass(frozen=True)
class Estimator:
    """Kept and decoded frames of sources under one sampling rule."""

    settings: dict[str, Any]

    def kept_frames(self, sources: Sequence[Source]) -> list[int]:
        """Estimated kept frames of each source, at least 1."""
        return [self._kept(frames) for frames in self.decoded_frames(sources)]

    def decoded_frames(self, sources: Sequence[Source]) -> list[float]:
        """Estimated frames of each source, at least 1; images have 1."""
        videos = [source for source in sources if source.kind == "video" and source.size > 0]
        probed = _probe_all(_sample(videos))
        known = {key: found.frames for key, found in probed.items()}
        bytes_known = sum(source.size for source in videos if source.key in known)
        per_byte = sum(known.values()) / bytes_known if bytes_known else 1 / FALLBACK_BYTES_PER_FRAME
        return [
            max(1.0, known.get(source.key, source.size * per_byte)) if source.kind == "video" else 1.0
            for source in sources
        ]

    def _kept(self, frames: float) -> int:
        if frames <= 1:
            return 1
        if self.settings["uniform"]:
            return int(self.settings["uniform"])
        step = self.settings["stride"] or max(1.0, 30.0 / self.settings["fps"])
        return max(1, -(-int(frames) // int(step)))


def _sample(sources: list[Source]) -> list[Source]:
    if len(sources) <= SAMPLE:
        return sources
    return sorted(sources, key=lambda source: hashlib.sha256(source.key.encode()).digest())[:SAMPLE]


def _probe_all(sources: list[Source]) -> dict[str, Probe]:
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda source: probe(source.uri, source.kind), sources)
    return {source.key: result for source, result in zip(sources, found, strict=True) if result is not None}
