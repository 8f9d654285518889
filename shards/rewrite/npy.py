"""One .npy file -> its whole numbers, mapped where it lies on a disk. Strangers may have made it: nothing is unpickled.

The header must be spelled as NumPy spells it, and is matched, not evaluated. Dtype and shape must fit the file's length
to the byte.
"""

import math
import os
import re
import stat
import struct
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from toto.plain import counted

HEADER_BYTES = 10_000
MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): "<H", (2, 0): "<I"}  # version -> how the header's length is stored; 3.0 is for fields with names
HEADER = re.compile(
    r"\{\s*'descr':\s*'([^'\\]{1,20})',\s*'fortran_order':\s*(True|False),\s*"
    r"'shape':\s*\(((?:\d{1,18}(?:,\s*|(?=\)))){0,8})\),?\s*\}\s*"
)
NUMBER = re.compile(r"[<>|=]?[iu][1248]")


class BadFile(Exception):
    """Why a file gives no row: a reason as quarantine counts it, and a line for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_npy(path: Path, root: Path) -> np.ndarray:
    """The array, read-only, whole numbers of any width; BadFile with missing, empty, not_an_array or wrong_dtype.

    A link that leads out of `root` is not followed: a stranger's folder must not bring in files of this machine.
    """
    with _opened(path, root) as file:
        return npy_in(file, os.fstat(file.fileno()).st_size)


def npy_in(file: BinaryIO, size: int) -> np.ndarray:
    """The array of an .npy file of `size` bytes that was opened, or lies in memory; BadFile."""
    if not size:
        raise BadFile("empty", "the file has no bytes")
    descr, fortran, shape = _header(file)
    if not NUMBER.fullmatch(descr):
        raise BadFile("wrong_dtype", f"{descr!r} instead of whole numbers; nothing is unpickled")
    dtype = np.dtype(descr)
    told, there = math.prod(shape) * dtype.itemsize, size - file.tell()
    if told != there:
        raise BadFile("not_an_array", f"{counted(there, 'byte')} of numbers where the header tells of {told:,}")
    if not told:
        raise BadFile("empty", f"shape {shape}")
    numbers: np.ndarray
    if isinstance(file, BytesIO):
        numbers = np.frombuffer(file.getbuffer(), dtype, offset=file.tell())
    else:
        numbers = np.memmap(file, dtype, "r", file.tell(), (math.prod(shape),))
    return numbers.reshape(shape, order="F" if fortran else "C")


def mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Raw numbers of this dtype and shape, to the byte, read-only; BadFile."""
    with _opened(path, path.parent) as file:
        told_bytes(path.name, os.fstat(file.fileno()).st_size, dtype, shape)
        return np.memmap(file, dtype, "r", 0, shape)


def told_bytes(name: str, size: int, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """BadFile where a raw file has another size than numbers of this dtype and shape take."""
    told = math.prod(shape) * dtype.itemsize
    if size != told:
        raise BadFile("wrong_shape", f"{name} has {counted(size, 'byte')} instead of {told:,} ({shape}, {dtype})")


def _opened(path: Path, root: Path) -> BinaryIO:
    """A regular file, opened without waiting for a pipe; BadFile missing."""
    try:
        if not path.resolve(strict=True).is_relative_to(root.resolve()):
            raise BadFile("missing", "a link that leads out of the folder")
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles
        raise BadFile("missing", getattr(error, "strerror", None) or "it cannot be opened") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadFile("missing", "not a regular file")
    return os.fdopen(handle, "rb")


def _header(file: BinaryIO) -> tuple[str, bool, tuple[int, ...]]:
    """dtype as it is spelled, whether columns come first, shape; BadFile not_an_array."""
    start = file.read(len(MAGIC) + 2)
    spelled = LENGTHS.get((start[-2], start[-1])) if len(start) == len(MAGIC) + 2 and start.startswith(MAGIC) else None
    if spelled is None:
        raise BadFile("not_an_array", "it does not begin as an .npy file of version 1.0 or 2.0 does")
    (length,) = struct.unpack(spelled, file.read(struct.calcsize(spelled)).ljust(struct.calcsize(spelled), b"\0"))
    if length > HEADER_BYTES:
        raise BadFile("not_an_array", f"its header has {length:,} bytes; at most {HEADER_BYTES:,} are read")
    found = HEADER.fullmatch(file.read(length).decode("latin-1"))
    if found is None:
        raise BadFile("not_an_array", "its header is not that of an array of numbers")
    return found[1], found[2] == "True", tuple(int(n) for n in found[3].replace(",", " ").split())
