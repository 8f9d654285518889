"""Tensors out of a stranger's file: safetensors, or what torch.save wrote, without running any code in it.

torch.load(weights_only=True) builds tensors and plain containers alone. Classes that well-known files name besides
(the modules of dall_e, callbacks of Lightning) become inert stand-ins that only keep what they are given, so neither
package is needed; a pickle that asks for anything else is refused by the name it asks for. Files from before torch 1.6
go the same way through weights_legacy.py. Entries of the zip must be stored, not packed, and no tensor may be larger
than its bytes in the file.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from toto.errors import UserError

STAND_INS = (  # prefixes of names that become stand-ins
    "dall_e.",
    "torch.nn.modules.",
    "pytorch_lightning.",
    "lightning.",
    "lightning_fabric.",
    "omegaconf.",
    "taming.",
    "main.",  # the script that taming's checkpoints were written by
)
STAND_IN_NAMES = (
    "argparse.Namespace",
    "builtins.dict",
    "builtins.int",
    "builtins.list",
    "builtins.object",
    "collections.defaultdict",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "pathlib.PosixPath",
    "typing.Any",
)
BROKEN = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)
MAX_PICKLE_BYTES = 8 * 2**20  # of a zip's data.pkl; the largest of ours has 0.1 MB. A byte can make an object of 64
MAX_ENTRIES = MAX_NAMES = 65_536
MAX_DEPTH = 64  # of modules in modules
SAFETENSORS_HEADER = 100 * 2**20

Tensors = dict[str, Any]  # name -> torch.Tensor


class StandIn:
    """What a pickle's object of some class becomes: keeps its state, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        """Takes what any constructor takes."""
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        """Keeps the object's dictionary."""
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Of mappings that are not needed."""


def read_tensors(path: Path) -> Tensors:
    """The named tensors of a file; UserError when it is damaged, unsafe or of another format."""
    with open(path, "rb") as file:
        start = file.read(16)
    if start[:4] == b"PK\x03\x04":
        return _from_zip(path)
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= SAFETENSORS_HEADER:
        return _from_safetensors(path)
    if start[:1] == b"\x80":
        return _from_legacy(path)
    what = "a web page" if start.lstrip()[:1] == b"<" else "neither safetensors nor what torch.save writes"
    raise UserError(f"{path}: {what}, no weights; fetch the file again, or name another")


def _from_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise UserError(f"{path}: damaged safetensors ({_line(error)}); fetch the file again") from None


def _from_zip(path: Path) -> Tensors:
    import torch

    _check_zip(path)
    try:
        with torch.serialization.safe_globals(_stand_ins(path)):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise UserError(f"{path}: not taken ({_line(error)}); nothing in it was run") from None
    return _plain(path, loaded)


def _from_legacy(path: Path) -> Tensors:
    from toto.tokenize.weights_legacy import load_legacy

    try:
        loaded = load_legacy(path, lambda name: _stand_in(path, name), MAX_PICKLE_BYTES)
    except BROKEN as error:
        raise UserError(f"{path}: not taken ({_line(error)}); nothing in it was run") from None
    return _plain(path, loaded)


def _plain(path: Path, loaded: Any) -> Tensors:
    """The named tensors of what was loaded, none of them of an odd kind or larger than its bytes."""
    import torch

    found = list(islice(_named(loaded), MAX_NAMES + 1))
    if len(found) > MAX_NAMES:
        raise UserError(f"{path}: names more than {MAX_NAMES:,} tensors; these weights are not taken")
    tensors = {name: tensor.detach() for name, tensor in found if isinstance(tensor, torch.Tensor)}
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise UserError(f"{path}: {name!r} is no plain tensor; these weights are not taken")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: {name!r} claims to be larger than its bytes; these weights are not taken")
    return tensors


def _check_zip(path: Path) -> None:
    """Bounds what torch will read: as torch.save writes it, every entry lies in the file as it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({_line(error)}); fetch the file again") from None
    packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    total = sum(entry.file_size for entry in entries)
    pickled = max((e.file_size for e in entries if e.filename.endswith("data.pkl")), default=0)
    if packed or total > path.stat().st_size or len(entries) > MAX_ENTRIES or pickled > MAX_PICKLE_BYTES:
        raise UserError(f"{path}: larger inside than outside, as torch.save never writes; these weights are not taken")


def _stand_ins(path: Path) -> list[Any]:
    """One inert class for each name beyond tensors that the pickle asks for; UserError for a name that is not known."""
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        names = get_unsafe_globals_in_checkpoint(str(path))
    except BROKEN as error:
        raise UserError(f"{path}: damaged ({_line(error)}); fetch the file again") from None
    return [(_stand_in(path, name), name) for name in names]


def _stand_in(path: Path, name: str) -> type:
    if not name.startswith(STAND_INS) and name not in STAND_IN_NAMES:
        raise UserError(f"{path}: its pickle asks for {name[:80]}, which no weights need; nothing in it was run")
    return type("StandIn", (StandIn,), {})


def _named(loaded: Any) -> Iterator[tuple[str, Any]]:
    """Names and tensors of a state dict, of a Lightning checkpoint, or of a whole module."""
    if isinstance(loaded, StandIn):
        yield from _of_module(loaded, "", 0)
    elif isinstance(loaded, Mapping):
        inner = loaded.get("state_dict", loaded)
        yield from ((str(name), value) for name, value in inner.items()) if isinstance(inner, Mapping) else ()


def _of_module(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    state = module.state if isinstance(module, StandIn) and depth < MAX_DEPTH else None
    if not isinstance(state, Mapping):
        return
    for kind in ("_parameters", "_buffers"):
        for name, value in _items(state.get(kind)):
            yield prefix + name, value
    for name, child in _items(state.get("_modules")):
        yield from _of_module(child, f"{prefix}{name}.", depth + 1)


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(name), item) for name, item in value.items()] if isinstance(value, Mapping) else []


def _line(error: BaseException) -> str:
    """What an error says, on one line, without torch's advice to turn the protection off."""
    text = " ".join(str(error).split())
    for mark in ("WeightsUnpickler error: ", "Weights only load failed. "):
        text = text.rpartition(mark)[2]
    return text[:160] or type(error).__name__
