"""Options that commands of several stages have in common: which configuration is meant, and JSON.

@config_options("recipes.pretrain.steps=1000")   --set, --config, --json; the example stands in the help
@all_of(one, another)                            several options as one
"""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")


def all_of(*options: Decorator) -> Decorator:
    """All these options, which the help lists in this order."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorated


def config_options(example: str) -> Decorator:
    """`sets`, `configs` and `as_json` of a command."""
    return all_of(
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help=f"Override a key: {example}"),
        click.option(
            "--config",
            "configs",
            multiple=True,
            metavar="FILE",
            help="Instead of ./pipelines.yaml; more are merged over it.",
        ),
        json_option,
    )
