"""toto-shards: look at a token dataset and prove that it is whole. Needs no video library and no torch."""

import sys
from pathlib import Path
from typing import Any

import click

from toto import __version__, command
from toto.errors import UsageError
from toto.plain import plain
from toto.shards.clips import Painter, Pick, choose
from toto.shards.dataset import Dataset
from toto.shards.originals import Originals, under
from toto.shards.pictures import has_pillow
from toto.shards.seen import seen_at, seen_json, seen_lines, write_seen
from toto.shards.store import open_store
from toto.shards.stream import open_run
from toto.shards.verify import Report
from toto.shards.verify import verify as verify_dataset
from toto.shards.view import View, format_of, write_view


@click.group(cls=command.CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Token datasets: what they hold, whether they are whole, what they look like.

    \b
    Example:
      toto-shards info data/demo/dct-512-64
      toto-shards verify --deep data/demo/dct-512-64
      toto-shards view data/demo/dct-512-64 --out sheet.png
    """


@cli.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON (a list for several datasets).")
def info(uris: tuple[str, ...], as_json: bool) -> None:
    """What datasets hold: sources, rows, frames, tokens, hours.

    \b
    Example: toto-shards info data/k600/dvae-128 data/howto100m/dvae-128
    """
    infos = [summary(Dataset(uri).info) for uri in uris]
    for uri, value in zip(uris, infos, strict=True):
        command.say(info_text(uri, value))
    if as_json:
        command.print_json(infos[0] if len(infos) == 1 else infos)


@cli.command()
@click.argument("uri")
@click.option("--deep", is_flag=True, help="Read every byte: file hashes, batch hashes, every row.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def verify(uri: str, deep: bool, as_json: bool) -> int:
    """Prove that a dataset is as it was sealed; exit code 1 when it is not.

    \b
    Example: toto-shards verify --deep data/demo/dct-512-64
    """
    report = verify_dataset(open_store(uri), deep, _progress if sys.stderr.isatty() else lambda done, total: None)
    command.say(report_text(uri, report, deep))
    if as_json:
        command.print_json({**vars(report), "ok": report.ok})
    return 0 if report.ok else 1


@cli.command()
@click.argument("uri")
@click.option(
    "--row", "rows", type=click.IntRange(0), multiple=True, metavar="N", help="This row (may be given again)."
)
@click.option(
    "--window", "windows", type=click.IntRange(0), multiple=True, metavar="N", help="This window of --frames frames."
)
@click.option("--frames", type=click.IntRange(1), metavar="T", help="Frames of a window; default 16.")
@click.option("--stride", type=click.IntRange(1), metavar="S", help="Stored frames from one to the next; default 1.")
@click.option("--source", metavar="KEY", help="Every row of this source.")
@click.option("--split", metavar="NAME", help="Count rows and windows in this split only.")
@click.option(
    "--sources", "root", metavar="ROOT", help="The folder that the dataset was made from: shows its frames beside."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("view.png"),
    show_default=True,
    metavar="FILE",
    help=".png, .gif, .mp4 or .html",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON: what is shown.")
def view(
    uri: str,
    rows: tuple[int, ...],
    windows: tuple[int, ...],
    frames: int | None,
    stride: int | None,
    source: str | None,
    split: str | None,
    root: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Decode tokens back to pictures; a few rows when none are named.

    \b
    Example: toto-shards view data/demo/dct-512-64 --window 7 --frames 8 --sources data/demo-world --out seven.gif
    """
    if sum(map(bool, (rows, windows, source is not None))) > 1:
        raise UsageError("--row, --window and --source: give one of them")
    if not windows and (frames or stride):
        raise UsageError("--frames and --stride say how long a window is: give --window N too")
    format_of(out)
    dataset = Dataset(uri, split=split)
    originals = Originals(under(root) if root else None)
    picks = choose(dataset, rows, windows, source, frames or 16, stride or 1)
    for pick in picks:
        command.say(plain(pick.caption))
    if as_json and not has_pillow():
        command.print_json(shown(dataset, picks, None))
    written, remarks = write_view(View(dataset, Painter(dataset, originals), picks), out)
    for remark in [*remarks, *([originals.note] if originals.note else [])]:
        command.say(plain(remark))
    click.echo(written)
    if as_json:
        command.print_json(shown(dataset, picks, written))


@cli.command()
@click.option("--run", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The training run's folder.")
@click.option("--step", type=click.IntRange(1), required=True, metavar="N", help="As metrics.jsonl counts; 1 is first.")
@click.option("--sequence", type=click.IntRange(0), metavar="I", help="Only this one of the step's batch; 0 is first.")
@click.option("--sources", "root", metavar="ROOT", help="The folder that the videos are in: shows its frames beside.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Pictures: .png, .gif, .mp4 or .html")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON: sources, frames, times, hashes.")
def seen(run: Path, step: int, sequence: int | None, root: str | None, out: Path | None, as_json: bool) -> None:
    """What a training step read: sources, frame numbers, times and pictures of its batch.

    \b
    Example: toto-shards seen --run runs/demo --step 200 --out step-200.html
    """
    if out is not None:
        format_of(out)
    found = seen_at(open_run(run), step, sequence)
    for line in seen_lines(found):
        command.say(plain(line))
    if as_json and (out is None or not has_pillow()):
        command.print_json(seen_json(found))
    if out is not None:
        originals = Originals(under(root) if root else None)
        written, remarks = write_seen(found, originals, out)
        for remark in [*remarks, *([originals.note] if originals.note else [])]:
            command.say(plain(remark))
        click.echo(written)
        if as_json:
            command.print_json(seen_json(found))


def shown(dataset: Dataset, picks: list[Pick], out: Path | None) -> dict[str, Any]:
    """What `view` shows, as data; `out` is None where no picture could be made."""
    return {
        "dataset_id": dataset.dataset_id,
        "out": None if out is None else str(out),
        "clips": [
            {
                "title": pick.title,
                "row_id": pick.row.record.row_id.hex(),
                "source": pick.row.record.source,
                "split": pick.row.split,
                "frame_index": pick.frame_index.tolist(),
                "crop": list(pick.row.record.crop),
            }
            for pick in picks
        ],
    }


def summary(value: dict[str, Any]) -> dict[str, Any]:
    """The facts of a snapshot that `info` shows."""
    return {
        **{name: value[name] for name in ("dataset_id", "name", "splits", "units", "quarantine", "settings")},
        "tokenizer": value["tokenizer"]["name"],
        "vocab_size": value["tokenizer"]["vocab_size"],
        **value["totals"],
    }


def info_text(uri: str, value: dict[str, Any]) -> str:
    """`info` for a person."""
    units = value["units"]
    lines = [
        f"{uri}",
        f"  dataset id   {value['dataset_id']}",
        f"  tokenizer    {value['tokenizer']}, {value['vocab_size']:,} codes",
        f"  sources      {value['sources']:,} used, {value['quarantined']:,} in quarantine",
        f"  rows         {value['rows']:,} in {value['shards']:,} shards ({value['bytes'] / 1e6:,.2f} MB)",
        f"  frames       {value['frames']:,}",
        f"  tokens       {value['tokens']:,} ids, start and end included",
        f"  hours        {value['hours']:.3f} of source video",
        f"  units        {units['committed']:,} of {units['planned']:,} planned",
    ]
    lines += [f"  {split:<12} {part['rows']:,} rows, {part['tokens']:,} ids" for split, part in value["splits"].items()]
    return "\n".join(lines)


def report_text(uri: str, report: Report, deep: bool) -> str:
    """`verify` for a person."""
    checked = f"{report.files:,} files, {report.bytes / 1e6:,.2f} MB" + (f", {report.rows:,} rows" if deep else "")
    lines = [*report.problems[:50]]
    if len(report.problems) > 50:
        lines.append(f"… and {len(report.problems) - 50} more")
    if report.leftovers:
        lines.append(f"{len(report.leftovers)} leftovers of unfinished runs, harmless (toto-tokenize status --clean)")
    problems = len(report.problems)
    verdict = "whole" if report.ok else f"{problems} problem{'s' if problems > 1 else ''}"
    how = "every byte was read" if deep else "names, sizes and small files; --deep reads every byte"
    return "\n".join([*lines, f"{uri}: {verdict} ({checked}; {how})"])


def _progress(done: int, total: int) -> None:
    click.echo(f"\r\x1b[Kverify {done}/{total} units", nl=False, err=True)


def main() -> None:
    """The console script."""
    command.run(cli)
