"""Tars that tests write by the standard library, and a cache of indices that is theirs alone."""

import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

from toto.tokenize.part import Part, head_hash


def member(name: str | bytes, size: int = 0, **more: Any) -> tarfile.TarInfo:
    """The header of a file in a tar; names may be any bytes."""
    info = tarfile.TarInfo(name if isinstance(name, str) else os.fsdecode(name))
    info.size, info.mtime = size, 1_700_000_000
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar_of(
    contents: Mapping[str, bytes] | Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT, mode: str = "w"
) -> bytes:
    """A tar with these files, in their order; `mode` "w:gz" compresses it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for name, content in contents.items() if isinstance(contents, Mapping) else contents:
            tar.addfile(member(name, len(content)), io.BytesIO(content))
    return target.getvalue()


def parts_of(tar: bytes, uri: str) -> dict[str, Part]:
    """What the standard library finds in a tar, as parts of the file at `uri`, by name; a plain file for each."""
    parts, end = {}, 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for info in archive:
            head = tar[end : info.offset_data]
            parts[info.name] = Part(info.offset_data, info.size, len(head), head_hash(head), uri)
            end = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return parts
