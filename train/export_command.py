"""`toto-train export`: a checkpoint as a folder that transformers loads."""

from pathlib import Path

import click

from toto import command
from toto.options import json_option


@click.command("export")
@click.option("--ckpt", required=True, metavar="PATH|URI", help="A checkpoint, or a run: its newest one.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The new folder.")
@click.option("--dtype", type=click.Choice(["fp32", "bf16"]), default="fp32", show_default=True, help="Of the weights.")
@click.option("--check/--no-check", default=True, show_default=True, help="Compare logits and tokens by transformers.")
@json_option
def export(ckpt: str, out: Path, dtype: str, check: bool, as_json: bool) -> None:
    """A checkpoint as a folder that transformers loads, with a card and a report of how equal the two are.

    \b
    Example: toto-train export --ckpt runs/large --out exported/large
    """
    from toto.train.export.folder import export as write
    from toto.train.load import load_model

    loaded = load_model(ckpt)
    parity = write(loaded, out, dtype, check)
    command.say(f"{out}: {loaded.config.arch}, step {loaded.step:,}, weights in {dtype}")
    if parity is None:
        command.say("not compared with the checkpoint")
    else:
        command.say(
            f"logits differ by at most {parity.max_logit_difference:.1e} (their spread is {parity.logit_spread:.2f}); "
            f"{parity.greedy_equal} of {parity.greedy_tokens} greedy tokens are equal"
        )
    if as_json:
        command.print_json({"out": str(out), "dtype": dtype, "parity": None if parity is None else parity.value()})
