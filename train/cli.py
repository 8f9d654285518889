"""`toto-train`: shards -> checkpoints. In this version it says what it will hold, and no more."""

import click

import toto
from toto import command


@click.group(cls=command.CommandGroup, epilog="Example: toto-train --version")
@click.version_option(toto.__version__, prog_name="toto-train", message="%(prog)s %(version)s")
def cli() -> None:
    """Train models on token shards.

    This version of toto makes and reads shards (toto-tokenize, toto-shards) and has no training yet.
    Commands to come here: plan, pretrain, finetune, generate, loss-by-position, scaling, coord-check, export,
    verify-resume.
    """


def main() -> None:
    """The console script `toto-train`."""
    command.run(cli)
