"""`toto-eval`: checkpoints + shards -> numbers. In this version it says what it will hold, and no more."""

import click

import toto
from toto import command


@click.group(cls=command.CommandGroup, epilog="Example: toto-eval --version")
@click.version_option(toto.__version__, prog_name="toto-eval", message="%(prog)s %(version)s")
def cli() -> None:
    """Evaluate a checkpoint on token shards.

    This version of toto makes and reads shards (toto-tokenize, toto-shards) and has no evaluation yet.
    Tasks to come here: probe, imagenet, k400, k600, k700, ucf101, hmdb51, cater, davis, ego4d-sta,
    franka-pick, kuka-pick, behaviour-cloning, ucf101-fvd, generation, promptable, loss-by-position, ngrams,
    tokenizer.
    """


def main() -> None:
    """The console script `toto-eval`."""
    command.run(cli)
