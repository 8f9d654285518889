"""Small folders in the layouts of datasets, written from their official descriptions, and what a reader lists there."""

from pathlib import Path
from typing import Any

import pytest

from toto.config import DatasetConfig
from toto.errors import UserError
from toto.tokenize.sources import Listing, list_sources


def tree(root: Path, *names: str, **contents: str) -> Path:
    """Writes small files, folders included: `names` hold their own name, `contents` a text each."""
    root.mkdir(parents=True, exist_ok=True)
    for name, data in [(name, name.encode("utf-8", "surrogateescape")) for name in names]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text.encode())
    return root


def dataset(root: Path | str, layout: str = "folder", **more: Any) -> DatasetConfig:
    """The entry `mine` of pipelines.yaml."""
    return DatasetConfig(name="mine", layout=layout, root=str(root), **more)


def keys(listing: Listing) -> list[str]:
    """The keys of its sources, in their order."""
    return [source.key for source in listing.sources]


def refusal(config: DatasetConfig, kind: type[Exception] = UserError) -> str:
    """The message in which listing ends: one or two lines."""
    with pytest.raises(kind) as caught:
        list_sources(config)
    message = str(caught.value)
    assert type(caught.value) is kind and 1 <= len(message.splitlines()) <= 2
    return message
