"""The road in one command: videos -> tokens -> proof -> model -> evaluation -> report.html.

    python -m toto.demo                      a made-up world of moving shapes, drawn on first use
    python -m toto.demo --all                the same, with a model that is trained five times as long
    python -m toto.demo --videos ~/holiday   your own videos and pictures, however nested: the first half of the road

Runs the commands that anyone could type, one after the other, and shows what they print; the page that it
writes at the end holds all of it. Run again after any interruption: it goes on, and what is done takes no time.
"""

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import click

from toto import command
from toto.demo.learning import Places, commands
from toto.demo.measured import Measured, recall, remember
from toto.demo.report import Story, report_html
from toto.demo.steps import Step, run_step
from toto.errors import UsageError
from toto.files import write_whole
from toto.shards.commit import committed_units
from toto.shards.dataset import Dataset
from toto.shards.look.originals import Find
from toto.shards.store import open_store
from toto.tokenize.cli import Target, resolve
from toto.tokenize.sources import list_sources

PLAN_TITLES = {"demo": "What will it take? (the first time, the world is drawn too)"}


@dataclass(frozen=True)
class Road:
    """What is tokenized, and where it all goes."""

    title: str
    dataset: str  # key in pipelines.yaml
    sets: tuple[str, ...]  # --set
    shards: str | None  # --out; None where toto-tokenize chooses by itself
    folder: Path  # of report.html
    learned: Places | None = None  # where the second half goes; None: tokens are the end of the road

    @property
    def words(self) -> list[str]:
        """Dataset and options of `toto-tokenize plan` and `run`."""
        sets = [word for value in self.sets for word in ("--set", value)]
        return [self.dataset, *sets, *(["--out", self.shards] if self.shards else [])]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--videos", metavar="PATH", help="Your own folder of videos and pictures, not the made-up world.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="For shards and report; default: in data/ and runs/."
)
@click.option(
    "--ray-address", metavar="ADDRESS", help="For toto-tokenize run: local uses no Ray, auto joins a cluster."
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="For toto-tokenize run; default: one for each CPU."
)
@click.option("--all", "everything", is_flag=True, help="Train five times as long, and show more (15 minutes).")
@click.option("--debug", is_flag=True, expose_value=False, help="Add the traceback to an error.")
def cli(videos: str | None, out: Path | None, ray_address: str | None, workers: int | None, everything: bool) -> int:
    """Turn videos into tokens, train a small model on them, evaluate it, and write a page to look at.

    \b
    Example: make demo
             make demo ARGS=--all
             make demo VIDEOS=~/holiday
    """
    started = time.monotonic()
    if videos is not None and everything:
        raise UsageError("--all is for the made-up world; docs/quickstart.md trains on your own videos")
    road = choose_road(videos, out, everything)
    target = resolve(road.dataset, None, road.shards, road.sets, ())
    options = {"--ray-address": ray_address, "--workers": workers}
    engine = [str(word) for name, value in options.items() if value is not None for word in (name, value)]
    steps, measured = travel(road, target, engine, everything)
    if steps[-1].exit_code:
        return steps[-1].exit_code
    page = road.folder / "report.html"
    dataset = Dataset(target.job.out)
    story = Story(road.title, target.job.out, dataset, tuple(steps), measured, finder(target), road.learned)
    write_whole(page, report_html(story).encode())
    seconds = time.monotonic() - started
    click.echo(f"\n{click.style(str(page), bold=True)}: open it in a browser ({seconds:.0f} s in all)")
    return 0


def choose_road(videos: str | None, out: Path | None, everything: bool = False) -> Road:
    """The made-up world, or a stranger's folder, which gets a place of its own."""
    data, runs = (
        Path(os.environ.get(name) or default) for name, default in (("TOTO_DATA", "data"), ("TOTO_RUNS", "runs"))
    )
    if videos is None:
        folder = out or runs / "demo"
        shards = str(out / "shards") if out else None
        return Road("A world of moving shapes", "demo", (), shards, folder, Places.under(folder, everything))
    # A stranger's folder holds anything: how much of it was unusable is for the page to tell, not a failure.
    sets = (f"datasets.folder.root={videos}", "datasets.folder.max_bad_fraction=1")
    place = _place(videos)
    return Road(_base(videos), "folder", sets, str(out / "shards" if out else data / place), out or runs / place)


def travel(road: Road, target: Target, engine: list[str], everything: bool) -> tuple[list[Step], Measured | None]:
    """Runs the commands in order up to the first that fails; what was measured when the dataset was made."""
    uri = target.job.out
    begun = bool(committed_units(open_store(uri)))
    to_shards = {
        PLAN_TITLES.get(road.dataset, "What will it take?"): ["toto-tokenize", "plan", *road.words],
        "Videos to tokens": ["toto-tokenize", "run", *road.words, *engine],
        "Is every byte as it was written?": ["toto-shards", "verify", "--deep", uri],
        "What is in it": ["toto-shards", "info", uri],
    }
    steps = run_all(to_shards)
    if steps[-1].exit_code:
        return steps, None
    dataset = Dataset(uri)
    if not begun:
        remember(road.folder, dataset, steps[1].seconds)
    if road.learned:
        steps += run_all(commands(road.learned, road.shards, everything))
    return steps, recall(road.folder, dataset)


def run_all(lines: dict[str, list[str]]) -> list[Step]:
    """Runs commands (title -> words) in order, up to the first that fails."""
    steps: list[Step] = []
    for title, words in lines.items():
        steps.append(run_step(title, words))
        if steps[-1].exit_code:
            break
    return steps


def finder(target: Target) -> Find:
    """Source key -> where it is read, by the dataset's own reader."""
    uris = {source.key: source.uri for source in list_sources(target.config).sources}
    return uris.get


def _base(videos: str) -> str:
    return Path(videos).absolute().name or videos


def _place(videos: str) -> str:
    """A folder name that is readable, safe, and different for folders of the same name."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", _base(videos)).strip("-")[:40].lower() or "videos"
    return f"{readable}-{hashlib.sha256(os.fsencode(os.path.realpath(videos))).hexdigest()[:6]}"


def main() -> None:
    """`python -m toto.demo`."""
    command.run(cli)
