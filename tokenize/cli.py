"""toto-tokenize: plan, run, status, retry, weights. What they print; the work is in cost.py, run.py, retry.py, …"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from toto import __version__, command
from toto.config import DatasetConfig, load
from toto.errors import UsageError, UserError
from toto.gpus import peak_bf16

try:
    import av  # noqa: F401
    import scipy  # noqa: F401
except ImportError as error:
    raise SystemExit(f"toto-tokenize needs {error.name}: pip install 'toto-video[tokenize]'") from None

from toto.shards.store import open_store
from toto.tokenize.cost import Cost, Prices, cost, cost_text, published_cost
from toto.tokenize.job import Job, make_job
from toto.tokenize.retry import retry as retry_sources
from toto.tokenize.run import Options, Result, tokenize
from toto.tokenize.sources import list_sources
from toto.tokenize.status import Status, clean
from toto.tokenize.status import status as read_status
from toto.tokenize.tokenizer_spec import refuse_missing_gpu
from toto.tokenize.weights_cli import weights


@dataclass(frozen=True)
class Target:
    """What DATASET and the options of a command name together."""

    config: DatasetConfig
    tokenizer: str  # its name in pipelines.yaml
    job: Job


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """DATASET and the options that say which dataset, tokenizer and target are meant."""
    for decorate in reversed(
        (
            click.argument("dataset"),
            click.option("--tokenizer", metavar="NAME", help="Default: the dataset's own in pipelines.yaml."),
            click.option("--out", metavar="URI", help="Default: ${TOTO_DATA:-data}/DATASET/TOKENIZER-R."),
            click.option(
                "--set",
                "sets",
                multiple=True,
                metavar="KEY=VALUE",
                help="Override a key: datasets.k400.stride=8",
            ),
            click.option(
                "--config",
                "configs",
                multiple=True,
                metavar="FILE",
                help="Instead of ./pipelines.yaml; more are merged over it.",
            ),
            click.option("--json", "as_json", is_flag=True, help="End with one line of JSON."),
        )
    ):
        function = decorate(function)
    return function


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How the work is done; none of it changes a row."""
    for decorate in reversed(
        (
            click.option(
                "--ray-address",
                default=None,
                metavar="ADDRESS",
                help="auto joins a cluster, local uses no Ray; default: start Ray here.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(1),
                help="Default: one for each CPU (a `local` run is always one).",
            ),
            click.option(
                "--tokenizer-actors",
                type=click.IntRange(0),
                help="Encode in so many actors of their own; default: 0, on GPUs one for each.",
            ),
            click.option(
                "--gpus-per-tokenizer",
                type=click.FloatRange(0.01),
                default=1.0,
                show_default=True,
                help="0.5: two tokenizer actors on a GPU.",
            ),
            click.option(
                "--worker-resource",
                metavar="NAME",
                help="Decode only on nodes that were started with this Ray resource.",
            ),
            click.option(
                "--limit",
                type=click.IntRange(1),
                metavar="N",
                help="Only the first N sources of the listing.",
            ),
            click.option("--quiet", is_flag=True, help="No progress."),
        )
    ):
        function = decorate(function)
    return function


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
    "--gpu", "card", default="H100", show_default=True, metavar="CARD", help="To plan for where none is here."
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
    prices = Prices(core_hour, gpu_hour, card, utilisation)
    peak_bf16(card)
    target = resolve(**names, anywhere=published, untrained=published)
    if published:
        found, ignored = published_cost(target.job, published_tokens(target.config), prices), {}
    else:
        listing = list_sources(target.config)
        found, ignored = cost(target.job, listing.sources[:limit], prices), listing.ignored
    command.say(plan_text(target, found, prices, ignored))
    if as_json:
        command.print_json(
            {**found.value(), "out": target.job.out, "ignored": ignored, "untrained": target.job.is_untrained}
        )


@cli.command()
@target_options
@run_options
def run(as_json: bool, **names: Any) -> int:
    """Tokenize; run again after any interruption and it goes on.

    \b
    Example: toto-tokenize run demo --workers 4
    """
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
    options, target = split_options(names)
    return finish(retry_sources(target.config, target.job, options, reason), target, as_json)


@cli.command()
@target_options
@click.option("--clean", "cleaning", is_flag=True, help="Remove leftovers of interrupted runs older than 24 hours.")
def status(cleaning: bool, as_json: bool, **names: Any) -> None:
    """What is done, left and quarantined; also while a run goes on.

    \b
    Example: toto-tokenize status demo
    """
    target = resolve(**names, anywhere=True)
    store = open_store(target.job.out)
    found = read_status(store)
    command.say(status_text(target.job.out, found))
    if cleaning:
        removed = clean(store)
        command.say(f"removed {len(removed)} leftovers")
    if as_json:
        command.print_json(found.value())


def resolve(
    dataset: str,
    tokenizer: str | None,
    out: str | None,
    sets: tuple[str, ...],
    configs: tuple[str, ...],
    anywhere: bool = False,
    untrained: bool = False,
) -> Target:
    """Configuration and command line -> what to work on; UsageError for whatever does not exist.

    `anywhere`: the dataset's root is not needed, and so need not be set. `untrained`: nor are a network's weights.
    """
    pipelines = load(configs, sets)
    config = pipelines.dataset(dataset, anywhere)
    chosen = pipelines.tokenizer(tokenizer or config.tokenizer)
    job = make_job(config, chosen, out or pipelines.shards(dataset, chosen.name), untrained)
    return Target(config, chosen.name, job)


def split_options(names: dict[str, Any]) -> tuple[Options, Target]:
    """The parameters of `run` and `retry` -> how and what."""
    how = ("workers", "tokenizer_actors", "gpus_per_tokenizer", "worker_resource", "limit", "quiet")
    options = Options(names.pop("ray_address") or "ray", **{name: names.pop(name) for name in how})
    target = resolve(**names)
    if options.engine in ("ray", "local"):  # else nodes of a cluster have the GPUs
        refuse_missing_gpu(target.job.tokenizer["name"], target.job.device)
    return options, target


def published_tokens(config: DatasetConfig) -> int:
    """As the paper counts them; UsageError where it does not say."""
    if config.published_tokens is None:
        raise UsageError(f"datasets.{config.name}.published_tokens is not set, so --published has nothing to plan")
    return config.published_tokens


def plan_text(target: Target, planned: Cost, prices: Prices, ignored: dict[str, int]) -> str:
    """The plan for a person."""
    job, left_out = target.job, left_out_text(ignored)
    if planned.sources is None:
        what = "  sources        not listed: the size is the paper's (Table 2)"
        how = "rates are measured on this machine, on made-up footage of 640×360 (pictures: 500×375)"
    else:
        what = f"  sources        {planned.sources:,} in {planned.units:,} units"
        how = "estimated from container headers and a short calibration on this machine"
    if job.is_untrained:
        how += f"\n{target.tokenizer}'s weights are not here: its rate is that of random ones of the official shapes"
    lines = [
        f"{job.name} with {target.tokenizer} -> {job.out}",
        what + (f" (left out: {left_out})" if left_out else ""),
        *cost_text(planned, prices),
        how,
    ]
    return "\n".join(lines)


def left_out_text(ignored: dict[str, int]) -> str:
    """What a listing left out, such as "12 .txt, 3 (in no official list)"."""
    return ", ".join(f"{count} {what}" for what, count in sorted(ignored.items()))


def status_text(out: str, found: Status) -> str:
    """The status for a person."""
    bad = sum(count for reason, count in found.results.items() if reason != "ok")
    lines = [
        f"{out}",
        f"  units        {found.committed_units} of {found.planned_units} done",
        f"  sources      {found.results['ok']} used, {bad} quarantined, of {found.planned_sources}",
        *(f"    {reason:<12} {count}" for reason, count in sorted(found.results.items()) if reason != "ok"),
        f"  rows         {found.rows:,} ({found.tokens:,} ids)",
    ]
    for run_ in found.running:
        counters, seconds = run_["counters"], max(run_["seconds"], 1e-9)
        eta = "" if run_["eta_s"] is None else f", {run_['eta_s']:,.0f} s left"
        lines.append(f"  running      {run_['run']}: {counters['kept'] / seconds:,.0f} kept frames/s{eta}")
    return "\n".join(lines)


def finish(result: Result, target: Target, as_json: bool) -> int:
    """Says what a run left; the exit code."""
    value = result.snapshot.value
    totals, units = value["totals"], value["units"]
    if not result.units_done and units["committed"] == units["planned"]:
        command.say("nothing to do: every planned unit was done before")
    command.say(
        f"{target.job.out}: {totals['rows']:,} rows, {totals['frames']:,} frames, {totals['tokens']:,} ids, "
        f"{totals['bytes'] / 1e6:,.2f} MB; {units['committed']} of {units['planned']} units\n"
        f"dataset id {value['dataset_id']}"
    )
    if result.ignored:
        command.say(f"left out of the listing: {left_out_text(result.ignored)}")
    if result.changed:
        command.say(
            f"{len(result.changed)} sources were changed after they had been planned (first: {result.changed[0]}); "
            "rows that were made before that stay, the rest is read as it is now"
        )
    if totals["quarantined"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in value["quarantine"].items())
        command.say(f"{totals['quarantined']} sources in quarantine: {reasons}")
    if as_json:
        command.print_json(result.summary())
    if result.failure:
        click.echo(f"error: {result.failure}", err=True)
        return UserError.exit_code
    return 0


cli.add_command(weights)


def main() -> None:
    """The console script."""
    command.run(cli)
