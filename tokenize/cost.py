"""What a run will take, before anything is spent: frames, tokens, bytes, core-hours, money, and the bottleneck.

Decode and encode rates are measured here and now: a few sources are decoded on one core, their frames encoded.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from toto.shards.ids import id_dtype
from toto.tokenize.clip import DecoderDied, SourceError, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.encoder import encode_padded
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import Job
from toto.tokenize.one_source import decode_request
from toto.tokenize.sources.base import Source
from toto.tokenize.units import cut_units, planned
from toto.tokenizers import Tokenizer, load

CALIBRATION_SOURCES = 3


@dataclass(frozen=True)
class Rates:
    """Measured on one core of this machine."""

    decoded_per_s: float  # frames, with resize of the kept ones
    encoded_per_s: float  # frames


@dataclass(frozen=True)
class Cost:
    """The whole listing under one job; all of it estimated from headers and a short calibration."""

    sources: int
    units: int
    frames_decoded: int
    frames_kept: int  # at this sampling, all views
    tokens: int
    tokens_every_frame: int  # if every decoded frame were kept (how the paper's Table 2 counts)
    bytes: int
    decode_core_hours: float
    encode_core_hours: float
    price: float
    bottleneck: str

    def value(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def cost(job: Job, sources: list[Source], price_per_core_hour: float) -> Cost:
    """Estimates; decodes at most a few sources of middle size."""
    estimator = Estimator(job)
    decoded, kept = estimator.decoded_frames(sources), estimator.kept_frames(sources)
    views = int(job.settings["views"])
    units = list(cut_units([planned(s, k) for s, k in zip(sources, kept, strict=True)], job.cells * views, {}))
    rates = calibrate(job, sources)
    frames = sum(kept) * views
    tokens = frames * job.cells if job.has_codes else 0
    pixels = frames * 3 * (job.settings["keep_pixels"] or 0) ** 2
    decode_h, encode_h = sum(decoded) / rates.decoded_per_s / 3600, frames / rates.encoded_per_s / 3600
    return Cost(
        sources=len(sources),
        units=len(units),
        frames_decoded=round(sum(decoded)),
        frames_kept=frames,
        tokens=tokens,
        tokens_every_frame=round(sum(decoded)) * views * job.cells if job.has_codes else 0,
        bytes=round(tokens * id_dtype(job.tokenizer["vocab_size"]).itemsize * 0.9) + pixels,
        decode_core_hours=decode_h,
        encode_core_hours=encode_h,
        price=(decode_h + encode_h) * price_per_core_hour,
        bottleneck="decode" if decode_h >= encode_h else "encode",
    )


def calibrate(job: Job, sources: list[Source]) -> Rates:
    """Decodes and encodes a few sources on one core; 1,000 frames/s where nothing could be decoded."""
    tokenizer = load(job.tokenizer)
    _encode_seconds(tokenizer, np.zeros((1, *[job.settings["resolution"]] * 2, 3), np.uint8))  # loads what it needs
    decoded = encoded = 0
    decode_s = encode_s = 0.0
    with Decoder(job.timeout_s, job.memory_mb) as decoder:
        for source in _typical(sources):
            started, spent_before = time.perf_counter(), encode_s
            try:
                for item in decoder.decode(decode_request(job, planned(source, 1), source.uri)):
                    if isinstance(item, SourceInfo):
                        decoded += item.frames_decoded
                    elif item.frames is not None:
                        encode_s += _encode_seconds(tokenizer, item.frames)
                        encoded += len(item.frames)
            except (SourceError, DecoderDied):
                continue
            decode_s += time.perf_counter() - started - (encode_s - spent_before)
    return Rates(decoded / decode_s if decoded else 1000.0, encoded / encode_s if encoded else 1000.0)


def _encode_seconds(tokenizer: Tokenizer, frames: np.ndarray) -> float:
    started = time.perf_counter()
    encode_padded(tokenizer, frames)
    return time.perf_counter() - started


def _typical(sources: list[Source]) -> list[Source]:
    """A few sources of middle size: videos where there are any."""
    videos = [s for s in sources if s.kind == "video" and s.size > 0] or [s for s in sources if s.size > 0]
    ordered = sorted(videos, key=lambda source: (source.size, source.key))
    middle = len(ordered) // 2
    return ordered[max(0, middle - 1) : middle + CALIBRATION_SOURCES - 1]
