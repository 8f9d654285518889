"""`toto-train verify-resume`: kill a run, resume it elsewhere, compare; on the user's machine and data."""

import click

from toto import command
from toto.errors import UsageError
from toto.train.options import needed, what_options


@click.command("verify-resume")
@what_options
@click.option("--steps", type=click.IntRange(8), default=24, show_default=True, metavar="N", help="Of each run.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True, help="That resume the killed run.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the step after which it is killed."
)
def verify_resume(
    size: str | None,
    recipe: str,
    data: tuple[str, ...],
    sets: tuple[str, ...],
    configs: tuple[str, ...],
    as_json: bool,
    steps: int,
    processes: int,
    device: str,
    seed: int,
) -> int:
    """Prove that a run goes on exactly: kill -9, resume with other processes and micro-batches, compare every step.

    \b
    Example: toto-train verify-resume --size tiny --recipe demo
    """
    from toto.config import load
    from toto.train.verify_resume import Trial, verdict_text

    pipelines = load(configs, sets)
    pipelines.model(needed(size))
    if steps > pipelines.recipe(recipe).steps:
        raise UsageError(f"--steps {steps}: recipes.{recipe}.steps is smaller")
    _check_gpus(device, processes)
    given = [("--data", data), ("--set", sets), ("--config", configs)]
    words = [word for option, values in given for value in values for word in (option, value)]
    arguments = ["--size", needed(size), "--recipe", recipe, "--device", device, *words]
    found = Trial(arguments, recipe, steps, processes, seed).run(lambda text: click.echo(text, err=True))
    command.say(verdict_text(found))
    if as_json:
        command.print_json(found.value())
    return 0 if found.holds else 1


def _check_gpus(device: str, processes: int) -> None:
    """UsageError where processes would have to share a GPU."""
    import torch

    gpus = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else processes
    if processes > gpus:
        raise UsageError(f"--processes {processes}: there is a GPU for {gpus} here; ask for fewer, or for --device cpu")
