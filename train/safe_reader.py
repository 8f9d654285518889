"""Reads torch.distributed.checkpoint files of strangers: tensors only, and no code.

A checkpoint's `.metadata` is a pickle. Here it may name the classes that describe tensors and nothing else, and it may
only point at files beside it; what it points at is loaded by torch with weights_only.
"""

import io
import pickle
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata

from toto.errors import UserError

_DESCRIPTIONS = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    (_DESCRIPTIONS, name)
    for name in (
        "Metadata",
        "MetadataIndex",
        "TensorStorageMetadata",
        "TensorProperties",
        "ChunkStorageMetadata",
        "StorageMeta",
        "_MEM_FORMAT_ENCODING",
    )
} | {
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
    ("pathlib", "PosixPath"),
    *(("torch", name) for name in ("float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")),
}


class SafeReader(FileSystemReader):
    """A FileSystemReader that trusts nothing in `.metadata`; UserError names what it refuses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._folder = folder

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The description of the tensors; every one lies in a file of this folder."""
        data = (self._folder / ".metadata").read_bytes()
        try:
            metadata = _Unpickler(io.BytesIO(data)).load()
        except UserError:
            raise
        except Exception as error:  # a damaged pickle raises nearly anything
            raise UserError(f"{self._folder}/.metadata cannot be read ({type(error).__name__}: {error})") from None
        _check(metadata, self._folder)
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(f"a checkpoint's .metadata asks for {module}.{name}: refused, tensors do not need it")
        return super().find_class(module, name)


def _check(metadata: Any, folder: Path) -> None:
    if not isinstance(metadata, Metadata):
        raise UserError(f"{folder}/.metadata does not describe tensors")
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            raise UserError(f"{folder}: {name} is no tensor: refused, it would have to be unpickled")
    for place in (metadata.storage_data or {}).values():
        if Path(place.relative_path).name != place.relative_path or place.transform_descriptors:
            raise UserError(f"{folder}/.metadata points outside of its folder: {place.relative_path}")
