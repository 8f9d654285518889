"""How much work sources are, before they are decoded: kept frames of each, from container headers.

Up to 256 sources are probed; of a longer list a keyed sample, whose frames per byte stand for the rest. The same
files give the same estimate, so they are cut into the same units.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from toto.shards.protocols import beside_grid
from toto.tokenize.decoder import Decoder
from toto.tokenize.job import Job
from toto.tokenize.probe import Probe
from toto.tokenize.sampling import DEFAULT_RATE
from toto.tokenize.sources.base import Source

SAMPLE = 256
PROBE_TIMEOUT_S, PROBE_MEMORY_MB = 30.0, 4096  # the same for every job: what is planned must not hang on them
LEAST_BYTES_PER_FRAME = 8  # a frame that only repeats the one before, and its place in the container's index
FALLBACK_BYTES_PER_FRAME = 4000  # about 1 Mb/s at 30 frames/s, where no header of the sample can be read


@dataclass(frozen=True)
class Estimator:
    """Kept and decoded frames of sources under the sampling rule of a job."""

    job: Job

    def kept_frames(self, sources: Sequence[Source]) -> list[int]:
        """Estimated kept frames of each source, at least 1."""
        decoded = self.decoded_frames(sources)
        return [self._kept(source, frames) for source, frames in zip(sources, decoded, strict=True)]

    def decoded_frames(self, sources: Sequence[Source]) -> list[float]:
        """Estimated frames of each source, at least 1; images have 1."""
        videos = [source for source in sources if source.kind == "video" and source.size > 0]
        sample = _sample(videos)
        probed = self._probe(sample)
        most = {source.key: max(1, source.size // LEAST_BYTES_PER_FRAME) for source in sample}
        known = {key: min(found.frames, most[key]) for key, found in probed.items()}  # headers lie
        bytes_known = sum(source.size for source in videos if source.key in known)
        per_byte = sum(known.values()) / bytes_known if bytes_known else 1 / FALLBACK_BYTES_PER_FRAME
        return [
            max(1.0, known.get(source.key, source.size * per_byte)) if source.kind == "video" else 1.0
            for source in sources
        ]

    def _probe(self, sources: list[Source]) -> dict[str, Probe]:
        """Headers, read where strangers' files are read: in a decoder's child, which may hang or crash."""
        with Decoder(PROBE_TIMEOUT_S, PROBE_MEMORY_MB) as decoder:
            found = {source.key: decoder.probe(source.uri, source.kind) for source in sources}
        return {key: probe for key, probe in found.items() if probe is not None}

    def _kept(self, source: Source, frames: float) -> int:
        if source.moments is not None:
            return max(1, len(source.moments))
        if frames <= 1:
            return 1
        settings = self.job.settings
        if settings["uniform"]:
            return int(settings["uniform"])
        step = settings["stride"] or max(1.0, DEFAULT_RATE / settings["fps"])
        kept = max(1, -(-int(frames) // int(step)))
        beside = sum(protocol.clips * protocol.frames for protocol in beside_grid(settings, source.split))
        return min(kept + beside, max(kept, int(frames)))


def _sample(sources: list[Source]) -> list[Source]:
    if len(sources) <= SAMPLE:
        return sources
    return sorted(sources, key=lambda source: hashlib.sha256(source.key.encode()).digest())[:SAMPLE]
