"""A picture file to RGB frames through Pillow: any colour mode, upright, animations frame by frame."""

from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from toto.shards.flags import Flag
from toto.tokenize.clip import SourceError, one_line
from toto.tokenize.picture import Picture
from toto.tokenize.resize import check_size
from toto.tokenize.transient import TransientError

# EPS would start Ghostscript; others nobody stores pictures in.
FORMATS = (
    "JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "JPEG2000", "PPM", "TGA", "QOI",
)  # fmt: skip
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # other formats' further pages are not frames of one scene
SHORTEST_MS = 10  # browsers show a frame that asks for 0-10 ms for 100 ms
DEFAULT_MS = 100.0
_ORIENTATION = 0x0112  # EXIF tag
_BITS_PER_SAMPLE = 258  # TIFF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImagePictures:
    """The frames of a picture file (see picture.Pictures): the first one, or all of an animation.

    `animated`: a GIF, PNG, WebP or AVIF of two frames and more is a video. Raises SourceError `open_error`,
    or `unsupported` for a size or colour mode that is refused.
    """

    rate: float | None = None
    truncated = False

    def __init__(self, file: BinaryIO, animated: bool) -> None:
        self._image = _open(file)
        check_size(*self._image.size)
        self._start = int(bool(self._image.info.get("default_image")))  # an APNG's still: not of its animation
        self.size = self._image.size
        self.frames = self._count() - self._start  # by the header; fewer may decode
        self.kind = "video" if animated and self.frames >= 2 else "image"
        self.codec = (self._image.format or "").lower()
        self.errors = 0
        self.detail = ""
        self.flags = Flag(0)

    def __iter__(self) -> Iterator[Picture]:
        if self.kind == "image":
            frame = self._frame(0)
            if frame is not None:
                yield Picture(0, None, frame)
            return
        start_ms, index = 0.0, 0
        while (frame := self._frame(self._start + index)) is not None:
            yield Picture(index, round(1_000 * start_ms), frame)
            start_ms += _duration_ms(self._image)
            index += 1

    def _count(self) -> int:
        if self._image.format not in ANIMATED:
            return 1
        try:
            return getattr(self._image, "n_frames", 1)
        except (MemoryError, TransientError):
            raise
        except Exception:  # the damage shows again, and is counted, when the frames are read
            return 2

    def _frame(self, position: int) -> av.VideoFrame | None:
        """The frame at a position of the file; None at its end or where it is damaged."""
        try:
            self._image.seek(position)
            self._image.load()
        except EOFError:
            return None
        except (MemoryError, TransientError):
            raise
        except Exception as error:  # OSError, ValueError, TypeError, SyntaxError, …
            self.errors += 1
            self.detail = self.detail or one_line(error)
            return None
        turn = _UPRIGHT.get(_exif_orientation(self._image))
        picture = to_rgb(self._image)
        if turn is not None:
            self.flags |= Flag.ROTATED
            picture = picture.transpose(turn)
        return av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a loaded picture; alpha is dropped, 16-bit grey scaled by its white.

    Raises SourceError `unsupported` for a colour mode without a conversion (premultiplied grey).
    """
    if image.mode.startswith("I"):
        white = _white(image)
        grey = np.asarray(image).astype(np.float64).clip(0, white) * (255 / white)
        image = Image.fromarray(np.rint(grey).astype(np.uint8))
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise SourceError("unsupported", f"colour mode {image.mode}: {one_line(error)}") from error


def _open(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except (MemoryError, TransientError, SourceError):
        raise
    except Image.DecompressionBombError as error:
        raise SourceError("unsupported", one_line(error)) from error
    except UnidentifiedImageError as error:
        raise SourceError("open_error", f"none of {', '.join(FORMATS)}, or a damaged header") from error
    except Exception as error:
        raise SourceError("open_error", one_line(error)) from error


def _white(image: Image.Image) -> int:
    """The largest value of a grey picture of more than 8 bits: 65,535, or what a TIFF's tag says (12-bit)."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
    return 2 ** min(bits, 16) - 1


def _exif_orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (MemoryError, TransientError):
        raise
    except Exception:  # damaged EXIF: shown as it is stored
        return 1


def _duration_ms(image: Image.Image) -> float:
    duration = float(image.info.get("duration") or 0)
    return duration if duration > SHORTEST_MS else DEFAULT_MS
