"""toto-train: shards -> checkpoints, and what a checkpoint knows. Needs no video library and no tokenizer."""

import sys
from contextlib import ExitStack
from typing import Any

import click

import toto
from toto import command
from toto.plain import counted
from toto.train.export_command import export
from toto.train.generation.command import generate
from toto.train.loss_command import loss_by_position
from toto.train.options import needed, what_options
from toto.train.verify_resume_command import verify_resume
from toto.train.watch.curves_command import curves


@click.group(cls=command.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(toto.__version__)
def cli() -> None:
    """Train models on token shards, and look at what they learned.

    \b
    Example:
      toto-train plan --size large
      toto-train pretrain --size tiny --recipe demo
      toto-train generate --ckpt runs/tiny
      toto-train export --ckpt runs/tiny --out exported/tiny
    """


@cli.command()
@what_options
@click.option("--out", metavar="DIR|URI", help="The run's folder; default: ${TOTO_RUNS:-runs}/SIZE.")
@click.option("--stop-at", type=click.IntRange(1), metavar="STEP", help="Save and stop after this step; go on later.")
@click.option("--profile", type=click.IntRange(1, 100), metavar="STEPS", help="Write down what so many steps spend.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def pretrain(
    size: str | None,
    recipe: str,
    data: tuple[str, ...],
    sets: tuple[str, ...],
    configs: tuple[str, ...],
    as_json: bool,
    out: str | None,
    stop_at: int | None,
    profile: int | None,
    device: str,
) -> None:
    """Train a model to predict the next visual token; run again after any interruption and it goes on.

    \b
    Example: toto-train pretrain --size tiny --recipe demo
             torchrun --nproc-per-node 8 -m toto.train pretrain --size large
    """
    from toto.config import load
    from toto.train.begin import begun
    from toto.train.loop import train
    from toto.train.parallel import joined
    from toto.train.run import Asked
    from toto.train.summary import summary_of

    pipelines = load(configs, sets)
    asked = Asked(needed(size), recipe, data, out, stop_at)
    with ExitStack() as held, joined(device) as team:
        job = held.enter_context(begun(asked, pipelines, team))
        if team.is_first:
            command.say(summary_of(job, team))
            sys.stdout.flush()
        done = train(job, team, profile or 0)
        if not team.is_first:
            return
        command.say(f"{done.checkpoint}: {counted(done.step, 'step')} done" + ending(done))
        if as_json:
            command.print_json(vars(done))


@cli.command()
@what_options
@click.option("--gpus", type=click.IntRange(1), default=8, show_default=True, help="For the time it takes.")
@click.option("--gpu", default="H100", show_default=True, metavar="CARD", help="Whose peak is taken; H100, A100, …")
@click.option(
    "--mfu", type=click.FloatRange(0.01, 1), default=0.4, show_default=True, help="Share of the peak that is reached."
)
@click.option("--price", type=click.FloatRange(0), metavar="SUM", help="Of a card for an hour; adds what a run costs.")
@click.option("--clips", type=click.IntRange(1), default=2048, show_default=True, help="For the time to generate.")
def plan(
    size: str | None,
    recipe: str,
    data: tuple[str, ...],
    sets: tuple[str, ...],
    configs: tuple[str, ...],
    as_json: bool,
    gpus: int,
    gpu: str,
    mfu: float,
    price: float | None,
    clips: int,
) -> None:
    """Parameters, compute, memory, GPU-days and epochs of a run, before anything is spent.

    \b
    Example: toto-train plan --size large
    """
    from toto.config import load
    from toto.train.plan import Machine, make_plan, plan_text

    found = make_plan(needed(size), recipe, data, load(configs, sets), Machine(gpu, gpus, mfu, clips, price))
    command.say(plan_text(found))
    if as_json:
        command.print_json(found)


def ending(done: Any) -> str:
    """`, loss 2.310, 12.9k tokens/s, …` of what was measured; `, nothing left to do` where no step was."""
    from toto.train.watch.progress import amount

    parts = [
        f"loss {done.loss:.4f}" if done.loss is not None else "nothing left to do",
        f"held-out {done.validation_loss:.4f} over {counted(done.validation_sequences, 'sequence')}"
        if done.validation_loss is not None
        else "",
        f"{amount(done.tokens_per_s)} tokens/s" if done.tokens_per_s else "",
        f"MFU {done.mfu:.0%} (causal attention; {done.mfu_palm:.0%} as PaLM counts)" if done.mfu else "",
    ]
    return "".join(f", {part}" for part in parts if part)


cli.add_command(generate)
cli.add_command(export)
cli.add_command(loss_by_position)
cli.add_command(curves)
cli.add_command(verify_resume)


def main() -> None:
    """The console script `toto-train`."""
    command.run(cli)
