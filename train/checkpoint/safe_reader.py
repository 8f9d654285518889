"""Reads torch.distributed.checkpoint files without unpickling anything: strangers' checkpoints run no code.

Those files come with a `.metadata`, which is a pickle, and no pickle can be made safe by a list of allowed classes. So
what it says of tensors is written into checkpoint.json as well, when it is our own, and read from there:

    {"model.norm.weight": {"dtype": "float32", "size": [128], "chunks": [[[0], [128], "__0_0.distcp", 0, 1641]]}}

A chunk is (offsets, sizes, file, first byte, bytes). The files' own tensors are loaded by torch with weights_only.
"""

from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from toto.errors import UserError

DTYPES = {str(kind).removeprefix("torch."): kind for kind in (torch.float32, torch.bfloat16, torch.float16)}


def described(metadata: Metadata) -> dict[str, Any]:
    """What `dcp.save` says of the tensors that it wrote, as a JSON value; ValueError for anything but tensors."""
    value: dict[str, Any] = {}
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise ValueError(f"{name} is no tensor")
        chunks = []
        for chunk in entry.chunks:
            place = _place(metadata.storage_data, name, chunk.offsets)
            chunks.append([list(chunk.offsets), list(chunk.sizes), place.relative_path, place.offset, place.length])
        kind = str(entry.properties.dtype).removeprefix("torch.")
        value[name] = {"dtype": kind, "size": list(entry.size), "chunks": chunks}
    return value


class SafeReader(FileSystemReader):
    """A FileSystemReader that is told what to read; `tensors` is what `described` gave, `files` may be read."""

    def __init__(self, folder: Path, tensors: dict[str, Any], files: set[str]) -> None:
        super().__init__(folder)
        self._tensors, self._files = tensors, files

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The description; UserError where it is not one, or names a file that is not of this checkpoint."""
        try:
            found = _metadata(self._tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{self.path}: its tensors are not described as they must be ({error})") from None
        for index, place in (found.storage_data or {}).items():
            if place.relative_path not in self._files:
                raise UserError(f"{self.path}: {index.fqn} is said to lie in {place.relative_path!r}, no file of it")
        assert found.storage_meta is not None, "made just now"
        found.storage_meta.load_id = self.load_id
        return found


def _place(storage: Any, name: str, offsets: torch.Size) -> _StorageInfo:
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
