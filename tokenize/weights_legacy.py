"""torch.save's format from before 1.6, read without running code: pickles one after another, then the bytes of tensors.

    magic · version · system · the object, whose tensors name storages · names of the storages · their bytes

torch.load(weights_only=True) does not take whole modules in it, and OpenAI's encoder.pkl may be one. The unpickler here
knows tensors, ordered dictionaries and sets; classes that the caller allows become its stand-ins; anything else is
refused by name. No storage may be larger than the file, and the pickles have a bound.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


def load_legacy(path: Path, stand_in: Callable[[str], type], max_pickle_bytes: int) -> Any:
    """The object of a file, its classes as `stand_in(name)` gives them.

    Raises pickle.UnpicklingError, ValueError, KeyError, EOFError and the like for what is damaged or too large, and
    whatever `stand_in` raises for a name that it refuses.
    """
    with open(path, "rb") as file:
        bounded = _Bounded(file, max_pickle_bytes)
        reader = _Reader(bounded, stand_in, path.stat().st_size)
        if reader.load() != MAGIC or _Reader(bounded, stand_in, 0).load() != VERSION:
            raise ValueError("not what torch.save writes")
        _Reader(bounded, stand_in, 0).load()  # the system that wrote it
        reader = _Reader(bounded, stand_in, path.stat().st_size)
        loaded = reader.load()
        for key in _Reader(bounded, stand_in, 0).load():
            reader.fill(str(key), file)
    return loaded


class _Bounded:
    """What pickles are read through: no more than so many bytes in all."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file, self._left = file, limit

    def read(self, size: int = -1) -> bytes:
        return self._counted(self._file.read(self._left + 1 if size < 0 else min(size, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("its pickle is larger than any of weights")
        return data


class _Reader(pickle.Unpickler):
    """Builds tensors over storages that are filled afterwards."""

    def __init__(self, file: _Bounded, stand_in: Callable[[str], type], room: int) -> None:
        super().__init__(file, encoding="utf-8")
        self._stand_in, self._room = stand_in, room
        self._storages: dict[str, Any] = {}  # key -> a flat tensor

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for; never what it names."""
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch.Size": tuple,
            "torch.device": str,
            "builtins.set": set,
            "__builtin__.set": set,
        }
        full = f"{module}.{name}"
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        return known[full] if full in known else self._stand_in(full)

    def persistent_load(self, saved_id: Any) -> Any:
        """A class beside its source code, which is not looked at; or a storage: a flat tensor, still empty."""
        import torch

        if saved_id[0] == "module":
            return saved_id[1]
        kind, dtype, key, _, count, view = saved_id
        if kind != "storage" or view is not None or not isinstance(dtype, str) or dtype not in DTYPES.values():
            raise ValueError("a storage of another kind")
        if key not in self._storages:
            made = torch.empty(0, dtype=getattr(torch, dtype))
            self._room -= int(count) * made.element_size()
            if int(count) < 0 or self._room < 0:
                raise ValueError("its tensors are larger than the file")
            self._storages[key] = made.new_empty(int(count))
        return self._storages[key]

    def fill(self, key: str, file: BinaryIO) -> None:
        """Reads the bytes of the next storage."""
        import numpy as np
        import torch

        flat = self._storages[key]
        count = int.from_bytes(file.read(8), "little", signed=True)
        data = file.read(flat.numel() * flat.element_size())
        if count != flat.numel() or len(data) != flat.numel() * flat.element_size():
            raise EOFError("its tensors are cut short")
        if data:
            flat.view(torch.uint8).copy_(torch.from_numpy(np.frombuffer(data, np.uint8).copy()))


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
    """A view of a storage; torch itself checks that it stays inside."""
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if 0 not in size else offset
    if offset < 0 or min([*stride, 0]) < 0 or last >= max(storage.numel(), 1):
        raise ValueError("a tensor that reaches beyond its bytes")
    return storage.as_strided(tuple(size), tuple(stride), offset)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data
