"""The demo world: drawn on first use, then read by the readers of the layouts it is written in.

    kinetics/ -> videos, `kinetics/<split>/<id>…`      imagenet/ -> images, `imagenet/<split>/<wnid>/<name>`

Videos and images have classes of their own: `labels` and `classes`, `image_labels` and `image_classes`.
"""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from rich.console import Console
from rich.progress import Progress

from toto.config import DatasetConfig
from toto.errors import UsageError
from toto.tokenize.demo import WorldSpec, build
from toto.tokenize.demo.world import MARKER
from toto.tokenize.input_file import local_path
from toto.tokenize.sources import base, imagenet, kinetics
from toto.tokenize.sources.base import Listing, Source

SPLITS = ("train", "val")


def read(config: DatasetConfig) -> Listing:
    """Videos and images of the world at the root, of any size; draws the default one when there is none."""
    base.chosen_splits(config, SPLITS)
    root = local_path(config.root)
    if root is None:
        raise UsageError(f"datasets.{config.name}.root: {config.root}: the demo world needs a local folder")
    if not (Path(root) / MARKER).is_file():
        _draw(Path(root))
    videos = kinetics.read(replace(config, layout="kinetics", root=f"{root}/kinetics"))
    images = imagenet.read(replace(config, layout="imagenet", root=f"{root}/imagenet"))
    sources = base.in_order([*_under("kinetics", videos), *_under("imagenet", images)], SPLITS)
    annotations = {
        "labels": _prefixed("kinetics", videos.annotations["labels"]),
        "classes": videos.annotations["classes"],
        "image_labels": _prefixed("imagenet", images.annotations["labels"]),
        "image_classes": images.annotations["classes"].select(base.CLASSES.names),
    }
    return Listing(sources, annotations, dict(Counter(videos.ignored) + Counter(images.ignored)))


def _draw(root: Path) -> None:
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        console.print(f"drawing the demo world into {root} (once)", soft_wrap=True, highlight=False)
    with Progress(console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(f"drawing the demo world into {root} (once)", total=None)
        build(root, WorldSpec(), lambda done, total: progress.update(task, completed=done, total=total))


def _under(part: str, listing: Listing) -> list[Source]:
    return [replace(source, key=f"{part}/{source.key}") for source in listing.sources]


def _prefixed(part: str, table: pa.Table) -> pa.Table:
    keys = pa.array([f"{part}/{key}" for key in table["source"].to_pylist()], pa.string())
    return table.set_column(table.schema.get_field_index("source"), table.schema.field("source"), keys)
