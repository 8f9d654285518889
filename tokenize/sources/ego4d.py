"""Ego4D's videos or clips, all in the split "train", without labels; keys are uids.

    ego4d_data/v2/full_scale/<uid>.mp4       variants: video_540ss (short side 540), full_scale, clips
    ego4d_data/v2/full_scale/manifest.csv
    ego4d_data/v2/ego4d.json                 the root may be ego4d_data, a version's folder, or the videos' own

Where several variants lie there and `variant` names none, video_540ss is taken before full_scale, that before clips:
the first two show the same videos, and at 128 pixels the smaller file gives the same picture sooner. The benchmarks'
own splits stand in the table `videos`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from toto.config import DatasetConfig
from toto.config_layers import unknown
from toto.errors import UsageError
from toto.tokenize.sources import base
from toto.tokenize.sources.base import Listing
from toto.tokenize.sources.ego4d_lists import CLIPS, MANIFEST, OFFICIAL, VERSIONS, read_list, tables
from toto.tokenize.sources.files import File, nothing_here
from toto.tokenize.sources.listed import Shelf, check_found, listed_source, no_list, stem
from toto.tokenize.sources.names import VIDEO_SUFFIXES, shown
from toto.tokenize.sources.tars import list_media

SPLITS = ("train",)
VARIANTS = ("video_540ss", "full_scale", CLIPS)


def read(config: DatasetConfig) -> Listing:
    """Every video, or clip, that ego4d.json names, or else manifest.csv; without them, every file.

    `videos` has times, size and the splits of the benchmarks; `scenarios` and `redacted` (intervals that were made
    unrecognisable) stand beside it (ego4d_lists). UserError when the root is not there or holds no listed video;
    UsageError for a variant that is not there.
    """
    base.chosen_splits(config, SPLITS)
    files, ignored = list_media(config, VIDEO_SUFFIXES)
    variant = _variant(config, files)
    files = _of_variant(files, variant, ignored)
    rows = read_list(above(config), variant, ignored)
    if rows is None and not files:
        raise nothing_here(config, "videos", ignored)
    shelf = Shelf(files, stem)
    uids = shelf.names() if rows is None else list(rows)
    newest = [f"{version}/{variant}" for version in VERSIONS]
    found = {uid: shelf.take(uid, *(f"{folder}/{uid}.mp4" for folder in newest)) for uid in uids}
    shelf.count_left(ignored)
    sources = [listed_source(config, uid, found[uid], SPLITS[0], None, ".mp4") for uid in uids]
    check_found(config, sources)
    sources = base.in_order(sources, SPLITS)
    warnings = (no_list(above(config), [OFFICIAL, MANIFEST], len(uids)),) if rows is None else ()
    annotations = tables([source.key for source in sources], rows or {})
    return Listing(sources, annotations, dict(+ignored), warnings=warnings)


def above(config: DatasetConfig) -> DatasetConfig:
    """The configuration with the folder around the videos' own as its root, where the root is that of a variant."""
    folder, _, own = config.root.rstrip("/").rpartition("/")
    return replace(config, root=folder) if own in VARIANTS and folder else config


def variants_here(config: DatasetConfig, files: Sequence[File]) -> list[str]:
    """The variants that have folders with files, in the order of `VARIANTS`; else the one that the root itself is."""
    places, own = {_place(file) for file in files}, config.root.rstrip("/").rpartition("/")[2]
    return [name for name in VARIANTS if name in places] or [name for name in VARIANTS if name == own]


def _variant(config: DatasetConfig, files: Sequence[File]) -> str | None:
    """The chosen variant; None for a folder of videos that does not say what it is."""
    where, here = f"datasets.{config.name}.variant", variants_here(config, files)
    if config.variant is not None and config.variant not in VARIANTS:
        raise UsageError(f"{where}: {unknown('variant', config.variant, VARIANTS)}")
    if config.variant is not None and here and config.variant not in here:
        raise UsageError(f"{where}: {config.variant} is not in {shown(config.root)}; there is {', '.join(here)}")
    return config.variant or next(iter(here), None)


def _of_variant(files: Sequence[File], variant: str | None, ignored: Counter[str]) -> list[File]:
    """Files in the variant's folder; all of them where no folder is called like a variant."""
    if all(_place(file) is None for file in files):
        return list(files)
    taken = [file for file in files if _place(file) == variant]
    ignored["(of another variant)"] += len(files) - len(taken)
    return taken


def _place(file: File) -> str | None:
    """The variant whose folder a file lies in."""
    return next((part for part in file.parts[:-1] if part in VARIANTS), None)
