"""Reads torch.distributed.checkpoint files without unpickling anything: strangers' checkpoints run no code.

Those files come with a `.metadata`, which is a pickle, and no pickle can be made safe by a list of allowed classes. So
what it says of tensors is written into checkpoint.json as well, when it is our own, and read from there:

    {"model.norm.weight": {"dtype": "float32", "size": [128], "chunks": [[[0], [128], "__0_0.distcp", 0, 1641]]}}

A chunk is (offsets, sizes, file, first byte, bytes): what torch.save made of it, a zip file. Of that only the member
`data/0` is read, the numbers as they lie in memory. It must have as many bytes as they take, and not be deflated, as
that could become anything.
"""

import math
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch
from torch.distributed.checkpoint import FileSystemReader, LoadPlan, LoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from toto.errors import UserError
from toto.train.checkpoint.reading import cause

NUMBERS = "/data/0"  # ends the name of the only storage of a tensor that torch.save wrote
LOCAL_HEADER = 30  # bytes of a member's own header, before its name
DTYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.bfloat16, torch.float16)}


def described(metadata: Metadata, written: Iterable[WriteResult]) -> dict[str, Any]:
    """What torch says of the tensors that it wrote, as a JSON value; ValueError for anything but tensors."""
    storage = {result.index: result.storage_data for result in written}
    value: dict[str, Any] = {}
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise ValueError(f"{name} is no tensor")
        chunks = []
        for chunk in entry.chunks:
            place = _place(storage, name, chunk.offsets)
            chunks.append([list(chunk.offsets), list(chunk.sizes), place.relative_path, place.offset, place.length])
        kind = str(entry.properties.dtype).removeprefix("torch.")
        value[name] = {"dtype": kind, "size": list(entry.size), "chunks": chunks}
    return value


class SafeReader(FileSystemReader):
    """A FileSystemReader that is told what to read; `tensors` is what `described` gave, `files` may be read.

    UserError where it is no description, or names a file that is not of this checkpoint.
    """

    def __init__(self, folder: Path, tensors: dict[str, Any], files: set[str]) -> None:
        super().__init__(folder)
        self._tensors = tensors
        try:  # here: torch would print the traceback of what goes wrong in `read_metadata`
            self._metadata = _metadata(tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise UserError(f"{folder}: its tensors are not described as they must be ({cause(error)})") from None
        for index, place in (self._metadata.storage_data or {}).items():
            if place.relative_path not in files:
                raise UserError(f"{folder}: {index.fqn} is said to lie in {place.relative_path!r}, no file of it")

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The description."""
        assert self._metadata.storage_meta is not None, "made above"
        self._metadata.storage_meta.load_id = self.load_id
        return self._metadata

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fills the tensors of a plan; UserError where a file does not hold the numbers that are said to be there."""
        done: Future[None] = Future()
        for item in plan.items:
            place = self.storage_data[item.storage_index]
            path = Path(self.path) / place.relative_path
            try:
                found = _numbers(_part(path, place.offset, place.length), self._shape(item), self._dtype(item))
            except (BadZipFile, ValueError, OSError, EOFError, NotImplementedError) as error:
                raise UserError(f"{path}: the numbers of {item.storage_index.fqn} are not there ({error})") from None
            for axis, (first, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                found = found.narrow(axis, first, length)
            target = planner.resolve_tensor(item).detach()
            target.copy_(found)
            planner.commit_tensor(item, target)
        done.set_result(None)
        return done

    def _shape(self, item: ReadItem) -> list[int]:
        """Of the chunk that a plan reads from."""
        chunks = self._tensors[item.storage_index.fqn]["chunks"]
        offsets = list(item.storage_index.offset or ())
        return next(sizes for first, sizes, *_ in chunks if list(first) == offsets)

    def _dtype(self, item: ReadItem) -> torch.dtype:
        return DTYPES[self._tensors[item.storage_index.fqn]["dtype"]]


def _part(path: Path, first: int, length: int) -> bytes:
    """Bytes of a file, as many of them as it has."""
    with open(path, "rb") as file:
        file.seek(first)
        return file.read(min(length, path.stat().st_size))


def _numbers(data: bytes, shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    """A tensor out of what torch.save wrote; ValueError, BadZipFile for anything else."""
    with ZipFile(BytesIO(data)) as archive:
        found = [member for member in archive.infolist() if member.filename.endswith(NUMBERS)]
    count = math.prod(shape)
    wanted = count * dtype.itemsize
    if [(member.compress_type, member.file_size) for member in found] != [(ZIP_STORED, wanted)]:
        raise ValueError(f"it should have {wanted:,} bytes, and as they are")
    header = found[0].header_offset + LOCAL_HEADER
    name, extra = (int.from_bytes(data[header - i : header - i + 2], "little") for i in (4, 2))
    start = header + name + extra
    numbers = bytearray(memoryview(data)[start : start + wanted])
    return torch.frombuffer(numbers, dtype=dtype, count=count).reshape(shape)  # ValueError where there are fewer bytes


def _place(storage: dict[MetadataIndex, _StorageInfo], name: str, offsets: torch.Size) -> _StorageInfo:
    return next(place for index, place in storage.items() if index.fqn == name and (index.offset or offsets) == offsets)


def _metadata(tensors: dict[str, Any]) -> Metadata:
    entries: dict[str, Any] = {}
    storage: dict[MetadataIndex, _StorageInfo] = {}
    for name, entry in tensors.items():
        chunks = []
        for i, (offsets, sizes, file, first, length) in enumerate(entry["chunks"]):
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
            storage[MetadataIndex(name, torch.Size(offsets), i)] = _StorageInfo(str(file), int(first), int(length))
        properties = TensorProperties(dtype=DTYPES[entry["dtype"]])
        entries[name] = TensorStorageMetadata(properties, torch.Size(entry["size"]), chunks)
    paths: dict[str, Any] = {name: tuple(name.split(".", 1)) for name in tensors}
    return Metadata(entries, planner_data=paths, storage_data=storage, storage_meta=StorageMeta())
