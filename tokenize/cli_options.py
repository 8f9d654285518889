"""What the commands of toto-tokenize have in common: which dataset, tokenizer and target are meant, and how to run."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toto.errors import UsageError
from toto.options import all_of, config_options

if TYPE_CHECKING:
    from toto.config import DatasetConfig
    from toto.tokenize.engine import Options
    from toto.tokenize.job import Job


@dataclass(frozen=True)
class Target:
    """What DATASET and the options of a command name together."""

    config: "DatasetConfig"
    tokenizer: str  # its name in pipelines.yaml
    job: "Job"


target_options = all_of(  # DATASET, and which dataset, tokenizer and target are meant
    click.argument("dataset"),
    click.option("--tokenizer", metavar="NAME", help="Default: the dataset's own in pipelines.yaml."),
    click.option("--out", metavar="URI", help="Default: ${TOTO_DATA:-data}/DATASET/TOKENIZER-R."),
    config_options("datasets.k400.stride=8"),
)

run_options = all_of(  # how the work is done; none of it changes a row
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
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N sources of the listing."),
    click.option("--quiet", is_flag=True, help="No progress."),
)


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
    from toto.config import load
    from toto.tokenize.job import make_job

    pipelines = load(configs, sets)
    config = pipelines.dataset(dataset, anywhere)
    chosen = pipelines.tokenizer(tokenizer or config.tokenizer)
    out = out or pipelines.shards(dataset, chosen.name)
    if not anywhere:
        _refuse_among_sources(config, out)
    return Target(config, chosen.name, make_job(config, chosen, out, untrained))


def _refuse_among_sources(config: "DatasetConfig", out: str) -> None:
    """UsageError where a new dataset would lie among its sources, or they in it; local folders only.

    One that was planned there before goes on: a listing counts its files as left out, and no more.
    """
    from toto.tokenize.part import plain_path
    from toto.tokenize.plan import FOLDER

    to, of = plain_path(out), plain_path(config.root)
    if to is None or of is None:
        return
    target, root = (Path(os.path.realpath(os.path.expanduser(place))) for place in (to, of))
    apart = target != root and target not in root.parents and root not in target.parents
    if not apart and not (target / FOLDER / "0001.parquet").exists():
        raise UsageError(
            f"--out {out} is, holds or lies in the sources' folder {root} (datasets.{config.name}.root); "
            "give an --out outside of it"
        )


def split_options(names: dict[str, Any]) -> tuple["Options", Target]:
    """The parameters of `run` and `retry` -> how and what."""
    from toto.tokenize.engine import LOCAL, OWN_RAY, Options
    from toto.tokenize.tokenizer_spec import refuse_missing_gpu

    how = ("workers", "tokenizer_actors", "gpus_per_tokenizer", "worker_resource", "limit", "quiet")
    options = Options(names.pop("ray_address") or OWN_RAY, **{name: names.pop(name) for name in how})
    target = resolve(**names)
    if options.engine in (OWN_RAY, LOCAL):  # else nodes of a cluster have the GPUs
        refuse_missing_gpu(target.job.tokenizer["name"], target.job.device)
    return options, target
