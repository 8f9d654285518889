"""How fast this machine decodes and encodes: a few sources are decoded on one core, their frames encoded, for a plan.

A tokenizer that states its arithmetic (`flops(side)` of one picture) can be planned for a GPU that is not here. What
bf16 costs in codes is measured too, on frames of the sources themselves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from toto.tokenize.canary import precision_facts
from toto.tokenize.clip import DecoderDied, SourceError, SourceInfo
from toto.tokenize.decoder import Decoder
from toto.tokenize.encoder import encode_padded
from toto.tokenize.job import Job
from toto.tokenize.one_source import decode_request
from toto.tokenize.planned import planned
from toto.tokenize.sources.base import Source
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenizers import Tokenizer

SOURCES = 3  # videos; of pictures 16 times as many
ENOUGH_S = 5.0  # of encoding: a dVAE needs a second for one picture on a core
UNKNOWN_RATE = 1000.0  # frames/s where nothing could be decoded


@dataclass(frozen=True)
class Rates:
    """Frames per second, measured here."""

    decoded: float  # on one core, with the resize of the kept ones
    encoded: float  # on one core, or on the GPU that is here
    device: str  # "cpu" | "cuda"
    flops_per_frame: float | None  # of encoding; None where the tokenizer does not state it
    flips: float | None  # share of codes that differ from fp32's, where the tokenizer runs in another precision


def calibrate(job: Job, sources: Sequence[Source]) -> Rates:
    """Decodes a few sources of middle size and encodes their frames, some seconds long."""
    tokenizer = job.make_tokenizer()
    side = job.settings["resolution"]
    _encode_seconds(tokenizer, np.zeros((1, side, side, 3), np.uint8))  # loads what it needs
    decoded = encoded = 0
    seen: np.ndarray | None = None
    decode_s = encode_s = 0.0
    with Decoder(job.timeout_s, job.memory_mb) as decoder:
        for source in _typical(SourceTable.of(sources)):
            decoder.probe(source.uri, source.kind)  # starts the child, outside what is timed
            started, spent_before = time.perf_counter(), encode_s
            try:
                for item in decoder.decode(decode_request(job, planned(source, 1), source.uri)):
                    if isinstance(item, SourceInfo):
                        decoded += item.frames_decoded
                    elif item.frames is not None and encode_s < ENOUGH_S:
                        encode_s += _encode_seconds(tokenizer, item.frames)
                        encoded += len(item.frames)
                        seen = item.frames
            except (SourceError, DecoderDied):
                continue
            decode_s += time.perf_counter() - started - (encode_s - spent_before)
    flops = getattr(tokenizer, "flops", None)
    return Rates(
        decoded=decoded / decode_s if decoded else UNKNOWN_RATE,
        encoded=encoded / encode_s if encoded else UNKNOWN_RATE,
        device=getattr(tokenizer, "device", "cpu"),
        flops_per_frame=None if flops is None else flops(side),
        flips=None if seen is None or job.is_untrained else precision_facts(tokenizer, seen).get("flips"),
    )


def _encode_seconds(tokenizer: Tokenizer, frames: np.ndarray) -> float:
    started = time.perf_counter()
    encode_padded(tokenizer, frames)
    return time.perf_counter() - started


def _typical(sources: SourceTable) -> SourceTable:
    """A few sources of middle size: videos where there are any, else more pictures, of one frame each."""
    there = sources.columns["size"].to_numpy() > 0
    videos = there & sources.is_word("kind", "video")
    count = SOURCES if videos.any() else 16 * SOURCES
    usable = sources.where(videos if videos.any() else there)
    order = pc.sort_indices(usable.columns, [("size", "ascending"), ("key", "ascending")]).to_numpy()
    first = max(0, (len(order) - count) // 2)
    return usable.take(order[first : first + count])
