"""toto-tokenize: plan, run, status, retry, weights. What they print; the work is in cost.py, run.py, retry.py, …

What a command needs is imported when it is called: `--help` and completed words wait for nothing.
"""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from toto import __version__, command
from toto.errors import UsageError, UserError
from toto.gpus import peak_bf16
from toto.plain import counted
from toto.tokenize.cli_options import Target, resolve, run_options, split_options, target_options

if TYPE_CHECKING:
    from toto.config import DatasetConfig
    from toto.tokenize.run import Result

for package in ("av", "scipy"):
    if find_spec(package) is None:
        raise SystemExit(f"toto-tokenize needs {package}: pip install 'toto-video[tokenize]'")


@click.group(cls=command.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Videos and images in, verified token shards out.

    \b
    Example:
      toto-tokenize plan demo
      toto-tokenize run demo
      toto-tokenize run folder --set datasets.folder.root=/my/videos --out data/mine
    """


@cli.command()
@target_options
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N sources of the listing.")
@click.option("--cost-per-core-hour", "core_hour", type=click.FloatRange(0), default=0.04, show_default=True)
@click.option("--cost-per-gpu-hour", "gpu_hour", type=click.FloatRange(0), default=2.5, show_default=True)
@click.option(
    "--gpu",
    "card",
    default="H100",
    show_default=True,
    metavar="CARD",
    help="The card to plan for where no GPU is here.",
)
@click.option(
    "--utilisation",
    type=click.FloatRange(0.001, 1),
    default=0.4,
    show_default=True,
    help="Share of that card's bf16 peak; assumed.",
)
@click.option("--published", is_flag=True, help="Of the size that the paper states, before the data are here.")
def plan(
    limit: int | None,
    published: bool,
    core_hour: float,
    gpu_hour: float,
    card: str,
    utilisation: float,
    as_json: bool,
    **names: Any,
) -> None:
    """List sources, cut units, and say what a run will take. Writes nothing (but draws the demo world, once).

    \b
    Example: toto-tokenize plan k400 --cost-per-core-hour 0.05
    """
    from toto.shards.store import open_store
    from toto.tokenize.cli_text import plan_text
    from toto.tokenize.cost import Prices, cost, published_cost
    from toto.tokenize.sources import list_sources
    from toto.tokenize.sources.source_table import SourceTable
    from toto.tokenize.status import done_before

    prices = Prices(core_hour, gpu_hour, card, utilisation)
    peak_bf16(card)
    target = resolve(**names, anywhere=published, untrained=published)
    ignored, warnings, done = dict[str, int](), tuple[str, ...](), 0
    if published:
        found = published_cost(target.job, published_tokens(target.config), prices)
    else:
        listing = list_sources(target.config)
        sources = SourceTable.of(listing.sources[:limit])
        found, ignored, warnings = cost(target.job, sources, prices), listing.ignored, listing.warnings
        with suppress(UserError, OSError):  # a place that is made later, or not to be read from here
            done = done_before(open_store(target.job.out), sources)
    command.say(plan_text(target, found, prices, ignored, done))
    if found.encode_gpu_hours is None and is_given("card"):
        click.echo(f"warning: --gpu is without effect: what {target.tokenizer} costs on a GPU is not known", err=True)
    if as_json:
        listed = {"ignored": ignored, "warnings": warnings, "done": done}
        command.print_json({**found.value(), "out": target.job.out, **listed, "untrained": target.job.is_untrained})


@cli.command()
@target_options
@run_options
def run(as_json: bool, **names: Any) -> int:
    """Tokenize; run again after any interruption and it goes on.

    \b
    Example: toto-tokenize run demo --workers 4
    """
    from toto.tokenize.run import tokenize

    options, target = split_options(names)
    return finish(tokenize(target.config, target.job, options), target, as_json)


@cli.command()
@target_options
@run_options
@click.option("--reason", help="Only sources quarantined for this reason, such as timeout.")
def retry(as_json: bool, reason: str | None, **names: Any) -> int:
    """Try quarantined sources again.

    \b
    Example: toto-tokenize retry k400 --reason missing
    """
    from toto.config_layers import unknown
    from toto.tokenize.clip import REASONS
    from toto.tokenize.retry import retry as retry_sources

    if reason is not None and reason not in REASONS:
        raise UsageError(f"--reason: {unknown('reason', reason, REASONS)}")
    options, target = split_options(names)
    result = retry_sources(target.config, target.job, options, reason)
    return finish(result, target, as_json, "no quarantined sources" + (f" with reason {reason!r}" if reason else ""))


@cli.command()
@target_options
@click.option("--clean", "cleaning", is_flag=True, help="Remove leftovers of interrupted runs older than 24 hours.")
def status(cleaning: bool, as_json: bool, **names: Any) -> None:
    """What is done, left and quarantined; also while a run goes on.

    \b
    Example: toto-tokenize status demo
    """
    from toto.shards.leftovers import clean
    from toto.shards.store import open_store
    from toto.tokenize.cli_text import status_text
    from toto.tokenize.status import status as read_status

    target = resolve(**names, anywhere=True)
    store = open_store(target.job.out)
    found = read_status(store)
    command.say(status_text(target.job.out, found))
    if cleaning:
        removed = clean(store)
        command.say(f"removed {counted(len(removed), 'leftover')}")
    if as_json:
        command.print_json(found.value())


def is_given(parameter: str) -> bool:
    """Whether a parameter of the running command stands on its command line."""
    return click.get_current_context().get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


def published_tokens(config: "DatasetConfig") -> int:
    """As the paper counts them; UsageError where it does not say."""
    if config.published_tokens is None:
        raise UsageError(f"datasets.{config.name}.published_tokens is not set, so --published has nothing to plan")
    return config.published_tokens


def finish(result: "Result", target: Target, as_json: bool, idle: str = "every planned unit was done before") -> int:
    """Says what a run left, and why where it had nothing to do; the exit code."""
    from toto.tokenize.cli_text import changed_text, left_out_text, quarantine_text

    value = result.snapshot.value
    totals, units = value["totals"], value["units"]
    if not result.units_done and units["committed"] == units["planned"]:
        command.say(f"nothing to do: {idle}")
    made = f"{counted(totals['rows'], 'row')}, {counted(totals['frames'], 'frame')}, {totals['tokens']:,} ids"
    done = f"{units['committed']:,} of {counted(units['planned'], 'unit')}"
    command.say(f"{target.job.out}: {made}, {totals['bytes'] / 1e6:,.2f} MB; {done}\ndataset id {value['dataset_id']}")
    if result.ignored:
        command.say(f"left out of the listing: {left_out_text(result.ignored)}")
    if result.changed:
        command.say(changed_text(result.changed, result.changed_done))
    if totals["quarantined"]:
        command.say(quarantine_text(target.job.out, value["quarantine"]))
    if as_json:
        command.print_json(result.summary())
    if result.failure:
        click.echo(f"error: {result.failure}", err=True)
        return UserError.exit_code
    return 0


cli.add_command(
    command.Later(
        "weights",
        "toto.tokenize.weights_cli:weights",
        "Say where the weights of the tokenizers come from and which are here.",
    )
)


def main() -> None:
    """The console script. After Ray the process leaves at once: a thread of its C++ that is still there when Python
    takes itself down ends it with SIGSEGV now and then, whatever the exit code was (seen with 2.60 after Ctrl-C).
    """
    try:
        command.run(cli)
    except SystemExit as end:
        if "ray" not in sys.modules:
            raise
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(int(end.code or 0))
