"""`toto-train curves`: the losses of one run or several over steps, tokens and compute, as a picture and as numbers."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from toto import command
from toto.options import json_option
from toto.plain import counted
from toto.train.options import OutputFolder

if TYPE_CHECKING:
    from toto.train.watch.curves import Curve


@click.command("curves")
@click.argument("runs", nargs=-1, required=True, metavar="RUN|URI...")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Default: `curves` in the first run's folder.")
@json_option
def curves(runs: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Training and held-out losses of runs over steps, tokens and compute; runs may be going on.

    \b
    Example: toto-train curves runs/tiny
             toto-train curves runs/base runs/large runs/1b --out figure-2
             toto-train curves s3://bucket/runs/large
    """
    from toto.files import write_whole
    from toto.train.load import results_of
    from toto.train.watch.curves import named, read_curve
    from toto.train.watch.curves_picture import picture

    found = [read_curve(run, name) for run, name in named(list(dict.fromkeys(run.rstrip("/") or run for run in runs)))]
    folder = out or results_of(runs[0]) / "curves"
    value = {"runs": [curve.as_json() for curve in found]}
    write_whole(folder / "curves.json", (json.dumps(value, indent=1) + "\n").encode())
    write_whole(folder / "curves.png", picture(found))
    command.say("\n".join(map(line_of, found)))
    command.say(f"{folder / 'curves.json'}, .png")
    if as_json:
        command.print_json(value)


def line_of(curve: "Curve") -> str:
    """A run for a person."""
    from toto.train.watch.progress import amount

    steps = curve.steps[-1:]
    held_out = f"  held out {curve.held_out[-1]:.3f}" if len(curve.held_out) else ""
    return (
        f"{curve.name}  {amount(curve.cost.parameters)} parameters  {counted(int(steps[0]), 'step')}  "
        f"{amount(float(curve.tokens(steps)[0]))} tokens  {amount(float(curve.flops(steps)[0]))} FLOPs  "
        f"loss {curve.last_loss():.3f}{held_out}"
    )
