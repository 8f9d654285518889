"""Options that several commands of toto-train share."""

import click

from toto.errors import UsageError
from toto.options import all_of, config_options

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


def needed(size: str | None) -> str:
    """UsageError where the command line names no model."""
    if not size:
        raise UsageError("which model? --size tiny, base, large, 1b, gpt2 or mamba (make pretrain SIZE=large)")
    return size
