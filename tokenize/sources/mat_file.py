"""One variable of a MATLAB 5 file that a stranger made: inflated within bounds, its nesting checked, then by SciPy.

scipy.io.loadmat runs no code of the file, but inflates without a limit and follows any depth of nesting.
"""

import io
import struct
import zlib
from typing import Any

MAX_BYTES = 64 * 2**20  # inflated; ImageNet's meta.mat has about 2 MB
MAX_DEPTH = 8  # of arrays in arrays
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15


def load_variable(data: bytes, name: str) -> Any:
    """A variable as scipy.io.loadmat gives it; ValueError where the bytes are no such file, or have none."""
    from scipy.io import loadmat  # a fifth of a second that other layouts need not wait for

    plain = _inflated(data)
    try:
        return loadmat(io.BytesIO(plain), variable_names=[name])[name]
    except Exception as error:  # KeyError, TypeError, MatReadError, …: strangers' files
        raise ValueError(f"{name} cannot be read ({type(error).__name__})") from error


def _inflated(data: bytes) -> bytes:
    """The same file without compressed elements, at most MAX_BYTES."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("not a MATLAB 5 file")
    plain, at = data[:_HEADER_BYTES], _HEADER_BYTES
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        end = at + 8 + size
        plain += _inflate(data[at + 8 : end], MAX_BYTES - len(plain)) if kind == _COMPRESSED else data[at:end]
        at = end
    _check_depth(plain, order)
    return plain


def _inflate(data: bytes, limit: int) -> bytes:
    try:
        plain = zlib.decompressobj().decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError("damaged") from error
    if len(plain) > limit:
        raise ValueError(f"more than {MAX_BYTES // 2**20} MiB when inflated")
    return plain


def _check_depth(plain: bytes, order: str) -> None:
    ends, at = [len(plain)], _HEADER_BYTES
    while at + 8 <= len(plain):
        kind, size = struct.unpack_from(f"{order}II", plain, at)
        if kind == _MATRIX and size:
            ends.append(at + 8 + size)
            at += 8
        else:
            at += 8 if kind >> 16 else 8 + -(-size // 8) * 8  # a small element has its data in the tag
        while len(ends) > 1 and at >= ends[-1]:
            ends.pop()
        if len(ends) > MAX_DEPTH:
            raise ValueError(f"arrays in arrays, more than {MAX_DEPTH} deep")
