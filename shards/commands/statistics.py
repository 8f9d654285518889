"""`toto-shards stats | ngrams | diff`: what the codes of datasets are like, and what two datasets share."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from toto import command
from toto.errors import UsageError
from toto.files import write_whole
from toto.plain import plain
from toto.shards.commands.output_file import OutputFile
from toto.shards.statistics import diff as comparing
from toto.shards.statistics.diff_text import diff_text
from toto.shards.statistics.ngrams import MEMORY_MB, WRAPS, Settings, count_ngrams
from toto.shards.statistics.ngrams_picture import ngrams_picture
from toto.shards.statistics.plots import NO_MATPLOTLIB, has_matplotlib
from toto.shards.statistics.shingles import Search
from toto.shards.statistics.stats import GROUPS, Asked, stats
from toto.shards.statistics.stats_picture import stats_picture
from toto.shards.statistics.stats_text import ngrams_text, stats_text

SHOWN_EVERY_S = 0.2
as_json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
workers_option = click.option(
    "--workers", type=click.IntRange(1, 512), default=1, show_default=True, metavar="N", help="Processes."
)
sample_option = click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Read N record batches, drawn by the dataset's id."
)


@click.command("stats")
@click.argument("uri")
@click.option("--split", metavar="NAME", help="Only this split.")
@click.option("--by", type=click.Choice(GROUPS), help="Also for each of these; source: names more of the extremes.")
@sample_option
@click.option("--all", "everything", is_flag=True, help="Read every record batch, which is the default.")
@workers_option
@click.option(
    "--out",
    "outs",
    type=OutputFile(),
    multiple=True,
    metavar="FILE",
    help=".png: a picture. .parquet: a row for each source. May be given again.",
)
@as_json_option
def show_stats(
    uri: str,
    split: str | None,
    by: str | None,
    sample: int | None,
    everything: bool,
    workers: int,
    outs: tuple[Path, ...],
    as_json: bool,
) -> None:
    """What the codes are like: codebook use, entropy, what stands still, sources that stand out, bytes and bounds.

    \b
    Example: toto-shards stats data/demo/dct-512-64 --out stats.png --out sources.parquet
    """
    if everything and sample:
        raise UsageError("--all and --sample: give one of them")
    _refuse_folders(outs)
    tables, pictures = (_of_kind(outs, suffix) for suffix in (".parquet", ".png"))
    if len(tables) + len(pictures) < len(outs):
        raise UsageError("--out: known formats are .png and .parquet, one file of each")
    value = stats(Asked(uri, split, by, sample, workers, tables[0] if tables else None), _Progress("stats"))
    command.say(stats_text(value, by))
    _draw(pictures, lambda: stats_picture(value))
    for path in tables:
        click.echo(path)
    if as_json:
        command.print_json(value)


@click.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@click.option("--n", "sizes", default="1,2,3", show_default=True, metavar="N,N…", help="Codes of an n-gram.")
@click.option(
    "--wrap",
    type=click.Choice(WRAPS),
    default="raster",
    show_default=True,
    help="raster: a frame's codes are one sequence. rows: n-grams do not leave a row of the grid.",
)
@click.option("--split", metavar="NAME", help="Only this split.")
@sample_option
@workers_option
@click.option(
    "--memory",
    "memory_mb",
    type=click.IntRange(64),
    default=MEMORY_MB,
    show_default=True,
    metavar="MB",
    help="Of a process; what does not fit goes to temporary files (TMPDIR).",
)
@click.option("--out", type=OutputFile(), metavar="FILE", help="A picture of all datasets: .png")
@as_json_option
def ngrams(
    uris: tuple[str, ...],
    sizes: str,
    wrap: str,
    split: str | None,
    sample: int | None,
    workers: int,
    memory_mb: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """How codes follow one another: figures 3, 12 and 13 of the paper, for any datasets and tokenizers.

    \b
    Example: toto-shards ngrams data/demo/dct-512-64 --n 1,2 --out ngrams.png
    """
    _refuse_folders((out,) if out else ())
    outs = _of_kind((out,) if out else (), ".png")
    if out and not outs:
        raise UsageError(f"--out {out}: the known format is .png")
    settings = Settings(_numbers(sizes), wrap, memory_mb)
    results = []
    for uri in uris:
        results.append(count_ngrams(uri, settings, split, sample, workers, _Progress(f"ngrams {uri}")))
        command.say(ngrams_text(results[-1]))
    _draw(outs, lambda: ngrams_picture(results, list(uris)))
    if as_json:
        command.print_json(results[0] if len(results) == 1 else {"datasets": results})


@click.command("diff")
@click.argument("a")
@click.argument("b", required=False)
@click.option("--splits", metavar="X,Y", help="Split X of A against split Y of B, or of A where there is no B.")
@click.option(
    "--frames", type=click.IntRange(1, 64), default=8, show_default=True, metavar="K", help="Shortest shared run."
)
@click.option(
    "--every",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="M",
    help="Keep one in M of the places where a run may be found; what that misses is stated.",
)
@click.option("--quick", is_flag=True, help="Settings and sources only: no shard is read.")
@workers_option
@click.option("--fail-on-shared", is_flag=True, help="Exit code 1 where sources or runs of frames are shared.")
@as_json_option
def show_diff(
    a: str,
    b: str | None,
    splits: str | None,
    frames: int,
    every: int,
    quick: bool,
    workers: int,
    fail_on_shared: bool,
    as_json: bool,
) -> int:
    """How two datasets differ, and what they share: sources, rows, runs of the same frames. Two splits of one, too.

    Frames are found by identical codes: a copy under another crop, size or phase of the stride has others and is not
    seen. Sources are also compared by the facts of their files, which finds copies under another key.

    \b
    Example: toto-shards diff data/k600/dvae-128 data/k400/dvae-128 --splits train,val --fail-on-shared
             toto-shards diff data/demo/dct-512-64 --splits train,val
    """
    if quick and fail_on_shared:
        raise UsageError("--fail-on-shared has to look at the frames, --quick does not: give one of the two")
    names: list[str | None] = list((splits or "").split(",")) if splits else [None, None]
    if len(names) != 2 or (b is None and splits is None):
        raise UsageError("give two datasets, or --splits X,Y with two splits of one")
    sides = comparing.Side(a, names[0]), comparing.Side(b or a, names[1])
    search = None if quick else Search(frames, every)
    value = comparing.diff(comparing.Asked(*sides, search, not quick, workers), _Progress("diff"))
    command.say(diff_text(value))
    if as_json:
        command.print_json(value)
    if fail_on_shared and value["runs"] is None:
        raise UsageError(
            "--fail-on-shared: frames of these two cannot be compared, their tokenizers differ or have no codes"
        )
    return 1 if fail_on_shared and value["shared"] else 0


def _refuse_folders(paths: tuple[Path, ...]) -> None:
    """UsageError, before anything is read, where a file cannot be written."""
    for path in paths:
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if path.is_dir() or not above.is_dir() or not os.access(above, os.W_OK):
            raise UsageError(f"--out {path}: no file can be written there")


def _of_kind(paths: tuple[Path, ...], suffix: str) -> list[Path]:
    """At most one path of this suffix."""
    return [path for path in paths if path.suffix.lower() == suffix][:1]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--n {text}: numbers with commas between them") from None


def _draw(paths: list[Path], paint: Any) -> None:
    for path in paths:
        if not has_matplotlib():
            command.say(NO_MATPLOTLIB)
            continue
        write_whole(path, paint())
        click.echo(path)


class _Progress:
    """One line on a terminal, at most five times a second; nothing elsewhere."""

    def __init__(self, what: str) -> None:
        self._what, self._begun, self._shown = what, time.monotonic(), 0.0
        self._live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._live or (done < total and now < self._shown + SHOWN_EVERY_S):
            return
        self._shown = now
        left = time.strftime(" · %H:%M:%S left", time.gmtime((now - self._begun) * (total - done) / max(done, 1)))
        line = f"{self._what}: {done:,}/{total:,} rows{left if done else ''}" if done < total else ""
        click.echo(f"\r\x1b[K{plain(line)}", nl=False, err=True)
