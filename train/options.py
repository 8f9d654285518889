"""Options that several commands of toto-train share."""

from pathlib import Path
from typing import Any

import click

from toto.errors import UsageError
from toto.options import all_of, config_options

FILES = frozenset({".png", ".jpg", ".svg", ".pdf", ".gif", ".mp4", ".html", ".json", ".csv", ".npz"})

what_options = all_of(  # what is trained on what
    click.option("--size", metavar="NAME", help="A model: tiny, base, large, 1b, gpt2, mamba."),
    click.option("--recipe", default="pretrain", show_default=True, metavar="NAME", help="How it is trained."),
    click.option(
        "--data",
        multiple=True,
        metavar="NAME|URI[=WEIGHT]",
        help="Train on this dataset (may be given again), not on the recipe's mixture.",
    ),
    config_options("recipes.pretrain.steps=1000"),
)


class OutputFolder(click.Path):
    """The type of an option that names a folder to write several files into; UsageError for a file's name, and for a
    dataset's folder."""

    name = "folder"

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path as it was given."""
        from toto.shards.snapshot import DATASET  # here: --help need not wait for pyarrow

        path = Path(str(super().convert(value, param, ctx)))
        if path.suffix.lower() in FILES:
            folder = path.with_suffix("")
            raise UsageError(f"--out {path}: several files are written; give a folder for them, such as {folder}")
        if (path / DATASET).exists():
            raise UsageError(f"--out {path} holds a token dataset; give the results a folder of their own")
        return path


def needed(size: str | None) -> str:
    """UsageError where the command line names no model."""
    if not size:
        raise UsageError("which model? --size tiny, base, large, 1b, gpt2 or mamba (make pretrain SIZE=large)")
    return size
