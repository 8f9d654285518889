"""Frames -> pictures a person can look at: PNG, GIF, and sheets of captioned strips. By Pillow, and nothing else.

Frames are uint8 RGB [H, W, 3]. Decoded ones are enlarged by whole factors, so that a patch stays a sharp square;
source frames smoothly. Pillow comes with toto-video[view]; without it every function here raises UserError.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from toto.errors import UserError
from toto.plain import plain

NO_PILLOW = "pictures need pillow: pip install 'toto-video[view]'"
GAP, MARGIN, LINE_HEIGHT, LABEL_WIDTH, FONT_SIZE = 4, 16, 20, 66, 13  # pixels
CAPTION_WIDTH = 480  # pixels: a sheet is at least so wide
PAPER, INK, FAINT = (255, 255, 255), (24, 26, 31), (110, 116, 128)  # RGB
MOST_PALETTE_PIXELS = 1 << 20  # of a clip, that its GIF palette is chosen from


@dataclass(frozen=True)
class Strip:
    """Pictures side by side with a word in front of them."""

    label: str
    pictures: Sequence[np.ndarray]  # uint8 [H, W, 3], all of one size


@dataclass(frozen=True)
class Band:
    """One clip on a sheet: a caption over its strips."""

    caption: str
    strips: Sequence[Strip]


def has_pillow() -> bool:
    """Whether pictures can be made here."""
    try:
        import_module("PIL.Image")
    except ImportError:
        return False
    return True


def sheet(bands: Sequence[Band]) -> np.ndarray:
    """A contact sheet, uint8 [H, W, 3]: bands one below the other, dark text on white."""
    strips = max(_strip_width(strip) for band in bands for strip in band.strips)
    width = max(CAPTION_WIDTH, MARGIN + LABEL_WIDTH + strips + MARGIN)
    canvas = _pil("Image").new("RGB", (width, sum(map(_band_height, bands)) + MARGIN), PAPER)
    draw, font = _pil("ImageDraw").Draw(canvas), _pil("ImageFont").load_default(FONT_SIZE)
    top = MARGIN
    for band in bands:
        _draw_band(canvas, draw, font, band, top)
        top += _band_height(band)
    return np.asarray(canvas)


def fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resized to [height, width, 3]: by repeating pixels where that is a whole factor up, else smoothly."""
    factor = height // picture.shape[0]
    if factor >= 1 and (picture.shape[0] * factor, picture.shape[1] * factor) == (height, width):
        return picture.repeat(factor, axis=0).repeat(factor, axis=1)
    image = _pil("Image")
    resized = image.fromarray(picture).resize((width, height), image.Resampling.LANCZOS)
    return np.asarray(resized)


def png_bytes(picture: np.ndarray) -> bytes:
    """One picture as a PNG file."""
    sink = io.BytesIO()
    _pil("Image").fromarray(picture).save(sink, "PNG", optimize=True)
    return sink.getvalue()


def gif_bytes(frames: Sequence[np.ndarray], fps: float) -> bytes:
    """Frames of one size as an endless GIF with one palette for all, so that what stands still does not flicker."""
    image = _pil("Image")
    step = max(1, -(-len(frames) * frames[0].shape[0] * frames[0].shape[1] // MOST_PALETTE_PIXELS))
    colours = np.concatenate([frame.reshape(-1, 3) for frame in frames])[::step]
    palette = image.fromarray(colours[None]).quantize(256, method=image.Quantize.MEDIANCUT)
    indexed = [image.fromarray(frame).quantize(palette=palette, dither=image.Dither.NONE) for frame in frames]
    sink = io.BytesIO()
    duration_ms = max(20, round(100 / fps) * 10)  # GIF counts in hundredths; browsers slow down below 20 ms
    indexed[0].save(sink, "GIF", save_all=True, append_images=indexed[1:], duration=duration_ms, loop=0, optimize=False)
    return sink.getvalue()


def _pil(name: str) -> Any:
    try:
        return import_module(f"PIL.{name}")
    except ImportError:
        raise UserError(NO_PILLOW) from None


def _strip_width(strip: Strip) -> int:
    return sum(picture.shape[1] + GAP for picture in strip.pictures) - GAP


def _band_height(band: Band) -> int:
    return LINE_HEIGHT + sum(strip.pictures[0].shape[0] + GAP for strip in band.strips) + MARGIN


def _draw_band(canvas: Any, draw: Any, font: Any, band: Band, top: int) -> None:
    draw.text((MARGIN, top), _shortened(band.caption, canvas.width - 2 * MARGIN, font), INK, font)
    top += LINE_HEIGHT
    for strip in band.strips:
        draw.text((MARGIN, top), strip.label, FAINT, font)
        left = MARGIN + LABEL_WIDTH
        for picture in strip.pictures:
            canvas.paste(_pil("Image").fromarray(picture), (left, top))
            left += picture.shape[1] + GAP
        top += strip.pictures[0].shape[0] + GAP


def _shortened(text: str, width: int, font: Any) -> str:
    """Text cut in the middle to `width` pixels."""
    text = plain(text)
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(f"{text[: keep // 2]}…{text[-(keep // 2) :]}") > width:
        keep -= 2
    return f"{text[: keep // 2]}…{text[-(keep // 2) :]}"
