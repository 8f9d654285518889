"""What a run will take, before anything is spent: frames, tokens, bytes, core-hours, GPU-hours, money, the bottleneck.

    listing ─ headers ─▶ frames ─▶ tokens, bytes          calibration ─▶ rates here ─▶ hours, price

Frames come from container headers, rates from decoding and encoding a little here and now. Where encoding has no GPU
here, its hours on another card follow from the tokenizer's arithmetic and an assumed share of the card's peak.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toto.gpus import peak_bf16
from toto.shards.ids import id_dtype
from toto.tokenize.calibrate import Rates, calibrate
from toto.tokenize.estimate import Estimator
from toto.tokenize.job import Job
from toto.tokenize.planned import planned_rows
from toto.tokenize.sample_footage import sample_sources
from toto.tokenize.sources.base import Source
from toto.tokenize.sources.source_table import SourceTable
from toto.tokenize.units import cut_units

HOUR = 3600.0
BYTES_PER_RAW_BYTE = 0.9  # zstd on ids; repeated pictures make it less
PAPER_STRIDE = 4  # §3.4
TABLE_2_FRAME = 256  # tokens that Table 2 counts a frame


@dataclass(frozen=True)
class Prices:
    """What an hour costs, in the user's currency, and which GPU is meant where none is here."""

    core_hour: float = 0.04
    gpu_hour: float = 2.5
    card: str = "H100"
    utilisation: float = 0.4  # share of the card's bf16 peak that encoding reaches; assumed

    @property
    def flops(self) -> float:
        """FLOP/s of encoding on that card; UsageError for an unknown one."""
        return peak_bf16(self.card) * self.utilisation


@dataclass(frozen=True)
class Cost:
    """The whole listing under one job; all of it estimated from headers and a short calibration."""

    frames_decoded: int
    frames_kept: int  # at this sampling, all views
    tokens: int
    tokens_stride_4: int  # as the paper samples (§3.4)
    tokens_every_frame: int  # as its Table 2 counts
    bytes: int
    decode_core_hours: float
    encode_core_hours: float | None  # on the CPU cores here; None where a GPU encodes
    encode_gpu_hours: float | None  # measured on the GPU here, or by arithmetic on `gpu`; None where unknown
    gpu: str  # what encode_gpu_hours is of: "here", or a card's name
    price: float  # of decoding and encoding on this kind of machine
    price_with_gpu: float | None  # of decoding on cores and encoding on `gpu`
    bottleneck: str  # "decode" | "encode": what takes longer on this kind of machine
    decode_cores_per_gpu: float | None  # that keep one such GPU busy
    flips: float | None  # share of codes that differ from fp32's, measured on a few frames; None in fp32
    sources: int | None = None  # None where nothing was listed
    source_bytes: int | None = None
    units: int | None = None

    def value(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def cost(job: Job, listed: Sequence[Source], prices: Prices) -> Cost:
    """Estimates; decodes at most a few sources of middle size."""
    estimator, sources = Estimator(job), SourceTable.of(listed)
    decoded, kept = estimator.decoded_frames(sources), estimator.kept_frames(sources)
    units = list(cut_units(planned_rows(sources, kept), job.cells * int(job.settings["views"]), {}))
    return _cost(
        job,
        frames=round(decoded.sum()),
        kept=int(kept.sum()),
        stride_4=_every(PAPER_STRIDE, decoded),
        rates=calibrate(job, sources),
        prices=prices,
        sources=len(sources),
        source_bytes=int(np.maximum(sources.columns["size"].to_numpy(), 0).sum()),
        units=len(units),
    )


def published_cost(job: Job, tokens: int, prices: Prices) -> Cost:
    """The cost of a dataset that is not here, of the size that the paper states; rates are of made-up footage.

    `tokens`: as Table 2 counts them, 256 for every frame or picture.
    """
    frames = tokens // TABLE_2_FRAME
    kind = "image" if job.settings["layout"].startswith("imagenet") else "video"
    with tempfile.TemporaryDirectory() as folder:
        rates = calibrate(job, sample_sources(Path(folder), kind))
    stride_4 = frames if kind == "image" else -(-frames // PAPER_STRIDE)
    stride = 1 if kind == "image" else job.settings["stride"] or PAPER_STRIDE
    return _cost(job, frames, -(-frames // stride), stride_4, rates, prices)


def _cost(job: Job, frames: int, kept: int, stride_4: int, rates: Rates, prices: Prices, **listing: int) -> Cost:
    views = int(job.settings["views"])
    cells = job.cells if job.has_codes else 0
    stored = kept * views
    pixels = stored * 3 * (job.settings["keep_pixels"] or 0) ** 2
    return Cost(
        frames_decoded=frames,
        frames_kept=stored,
        tokens=stored * cells,
        tokens_stride_4=stride_4 * views * cells,
        tokens_every_frame=frames * views * cells,
        bytes=round(stored * cells * id_dtype(job.tokenizer["vocab_size"]).itemsize * BYTES_PER_RAW_BYTE) + pixels,
        **{**_hours(rates, frames, stored, prices), **listing},
    )


def _every(stride: int, decoded: np.ndarray) -> int:
    return int((-(-np.rint(decoded).astype(np.int64) // stride)).sum())


def _hours(rates: Rates, decoded: float, frames: int, prices: Prices) -> dict[str, Any]:
    """The fields of Cost that follow from rates."""
    decode_h, encode_h = decoded / rates.decoded / HOUR, frames / rates.encoded / HOUR
    on_gpu = rates.device == "cuda"
    gpu_h = encode_h if on_gpu else None
    if gpu_h is None and rates.flops_per_frame:
        gpu_h = frames * rates.flops_per_frame / prices.flops / HOUR
    core_price = decode_h * prices.core_hour
    with_gpu = None if gpu_h is None else core_price + gpu_h * prices.gpu_hour
    return {
        "decode_core_hours": decode_h,
        "encode_core_hours": None if on_gpu else encode_h,
        "encode_gpu_hours": gpu_h,
        "gpu": "here" if on_gpu else prices.card,
        "price": with_gpu if on_gpu else core_price + encode_h * prices.core_hour,
        "price_with_gpu": with_gpu,
        "bottleneck": "decode" if decode_h >= encode_h else "encode",
        "decode_cores_per_gpu": decode_h / gpu_h if gpu_h else None,
        "flips": rates.flips,
    }


def cost_text(found: Cost, prices: Prices) -> list[str]:
    """The estimate for a person, one line a fact."""
    listed = found.sources is not None
    lines = [
        *([f"  read           {_amount(found.source_bytes or 0)}"] if listed else []),
        f"  frames         {found.frames_decoded:,} to decode, {found.frames_kept:,} kept",
        f"  tokens         {found.tokens:,} ({found.tokens_stride_4:,} at stride {PAPER_STRIDE}, "
        f"{found.tokens_every_frame:,} of every frame)",
        f"  written        about {_amount(found.bytes)}",
        f"  decode         {_time(found.decode_core_hours, 'core')}",
    ]
    if found.encode_core_hours is not None:
        lines.append(f"  encode         {_time(found.encode_core_hours, 'core')} on CPUs like this one")
    if found.encode_gpu_hours is not None:
        where = "measured here" if found.gpu == "here" else f"{found.gpu} at {prices.utilisation:.0%} of peak, assumed"
        busy = f"; {found.decode_cores_per_gpu:,.1f} decoding cores keep one busy"
        lines.append(f"  encode         {_time(found.encode_gpu_hours, 'GPU')} ({where}{busy})")
    lines.append(f"  price          {found.price:,.4f} at {prices.core_hour:g} a core-hour" + _gpu_price(found, prices))
    lines.append(f"  bottleneck     {found.bottleneck}")
    if found.flips is not None:
        lines.append(f"  exactness      {found.flips:.2%} of the codes of a few frames differ from fp32's")
    return lines


def _gpu_price(found: Cost, prices: Prices) -> str:
    if found.price_with_gpu is None:
        return ""
    if found.gpu == "here":
        return f" and {prices.gpu_hour:g} a GPU-hour"
    return f"; {found.price_with_gpu:,.4f} with {found.gpu} at {prices.gpu_hour:g} an hour"


def _time(hours: float, unit: str) -> str:
    return f"{hours:,.1f} {unit}-hours" if hours >= 1 else f"{hours * HOUR:,.1f} {unit}-seconds"


def _amount(count: int) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count / 1e6:,.2f} MB"
