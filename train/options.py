"""Options that several commands of toto-train share."""

from typing import Any

import click

from toto.errors import UsageError


def what_options(function: Any) -> Any:
    """Options that say what is trained on what."""
    for option in reversed(
        [
            click.option("--size", metavar="NAME", help="A model: tiny, base, large, 1b, gpt2, mamba."),
            click.option("--recipe", default="pretrain", show_default=True, metavar="NAME", help="How it is trained."),
            click.option(
                "--data",
                multiple=True,
                metavar="NAME|URI[=WEIGHT]",
                help="Train on this dataset (may be given again), not on the recipe's mixture.",
            ),
            click.option(
                "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key: recipes.pretrain.steps=1000"
            ),
            click.option(
                "--config",
                "configs",
                multiple=True,
                metavar="FILE",
                help="Instead of ./pipelines.yaml; more are merged over it.",
            ),
            click.option("--json", "as_json", is_flag=True, help="End with one line of JSON."),
        ]
    ):
        function = option(function)
    return function


def needed(size: str | None) -> str:
    """UsageError where the command line names no model."""
    if not size:
        raise UsageError("which model? --size tiny, base, large, 1b, gpt2 or mamba (make pretrain SIZE=large)")
    return size
