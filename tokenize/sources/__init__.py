"""Readers, one per layout that people really have on disk: a dataset's configuration -> its `Listing`."""

import sys
from dataclasses import replace
from importlib import import_module

from toto.config import DatasetConfig
from toto.errors import UsageError
from toto.tokenize.sources.base import Listing, Source
from toto.tokenize.sources.source_table import SourceTable
from toto.uris import refuse_secrets

READERS = {
    "folder": "toto.tokenize.sources.folder",
    "webdataset": "toto.tokenize.sources.webdataset",
    "howto100m": "toto.tokenize.sources.howto100m",
    "kinetics": "toto.tokenize.sources.kinetics",
    "ego4d": "toto.tokenize.sources.ego4d",
    "imagenet": "toto.tokenize.sources.imagenet",
    "imagenet21k": "toto.tokenize.sources.imagenet21k",
    "davis": "toto.tokenize.sources.davis",
    "ucf101": "toto.tokenize.sources.ucf101",
    "hmdb51": "toto.tokenize.sources.hmdb51",
    "cater": "toto.tokenize.sources.cater",
    "ego4d-sta": "toto.tokenize.sources.ego4d_sta",
    "demo": "toto.tokenize.sources.demo",
}

ASKED_OF = {  # key -> layouts that have it
    "variant": ("davis", "ego4d", "ego4d-sta", "cater"),
    "fold": ("ucf101", "hmdb51"),
}

__all__ = ["READERS", "Listing", "Source", "list_sources"]


def list_sources(config: DatasetConfig) -> Listing:
    """Everything under the dataset's root that its layout names; on stderr, which official lists are not there.

    UserError when there is nothing to read; UsageError for a `variant` or `fold` of a layout that has none,
    and for a root that holds a password.
    """
    for key, layouts in ASKED_OF.items():
        if getattr(config, key) is not None and config.layout not in layouts:
            raise UsageError(f"datasets.{config.name}.{key}: only layouts {', '.join(layouts)} have it; take it away")
    refuse_secrets(config.root, f"sources (datasets.{config.name}.root)")
    listing: Listing = import_module(READERS[config.layout]).read(config)
    for warning in listing.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return replace(listing, sources=SourceTable.of(listing.sources))
