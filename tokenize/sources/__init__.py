"""Readers, one per layout that people really have on disk: a dataset's configuration -> its `Listing`."""

from importlib import import_module

from toto.config import DatasetConfig
from toto.tokenize.sources.base import Listing, Source

READERS = {
    "folder": "toto.tokenize.sources.folder",
    "kinetics": "toto.tokenize.sources.kinetics",
    "imagenet": "toto.tokenize.sources.imagenet",
    "demo": "toto.tokenize.sources.demo",
}

__all__ = ["READERS", "Listing", "Source", "list_sources"]


def list_sources(config: DatasetConfig) -> Listing:
    """Everything under the dataset's root that its layout names; UserError when there is nothing to read."""
    listing: Listing = import_module(READERS[config.layout]).read(config)
    return listing
