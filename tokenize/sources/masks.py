"""Masks of objects as indexed PNGs: the file's own bytes for annotations, and what its pixels say, read with care.

0 is background, 1 … N are objects, 255 is void. DAVIS-2016 has grey masks instead, where 255 is the one object: read
by the other rule its object would be void, and every score perfect.
"""

import io
from dataclasses import dataclass

import pyarrow as pa
from PIL import Image

from toto.tokenize.resize import MAX_PIXELS
from toto.tokenize.sources.lists import read_within

MASKS = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("frame", pa.int32()),  # decoded frame: the picture's place in its folder
        pa.field("name", pa.string()),  # of the frame, without suffix
        pa.field("png", pa.large_binary()),  # the file, byte for byte; null where the frame has none
        pa.field("objects", pa.int32()),  # the highest id but 255; 1 or 0 where `binary`
        pa.field("binary", pa.bool_()),  # a grey mask of 0 and 255: 255 is the object, not void
        pa.field("height", pa.int32()),
        pa.field("width", pa.int32()),
    ]
)
MAX_BYTES = 16 * 2**20  # of a file; at 480p they have 2 to 10 KB
VOID = 255


@dataclass(frozen=True)
class Mask:
    """What `MASKS` holds of a file; nothing where there is none."""

    png: bytes | None = None
    objects: int | None = None
    binary: bool | None = None
    height: int | None = None
    width: int | None = None


def read_mask(uri: str) -> Mask | None:
    """A mask's file; None for one that is too large, damaged, or no PNG of grey values or indices. UserError when it
    cannot be read."""
    data = read_within(uri, MAX_BYTES)
    try:
        return None if data is None else _parse(data)
    except MemoryError:
        raise
    except Exception:  # Pillow raises OSError, ValueError, SyntaxError, … for what strangers send
        return None


def _parse(data: bytes) -> Mask | None:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        width, height = image.size
        if width * height > MAX_PIXELS or image.mode not in ("P", "L", "1"):
            return None
        counts = image.convert("L").histogram() if image.mode == "1" else image.histogram()
        found = [value for value, count in enumerate(counts) if count]
        binary = image.mode != "P" and set(found) <= {0, VOID}
    ids = [int(value == VOID) for value in found] if binary else [value for value in found if value != VOID]
    return Mask(data, max(ids, default=0), binary, height, width)
