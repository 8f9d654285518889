"""`toto-shards view | seen`: tokens as pictures again, beside the frames that they were made from."""

from pathlib import Path
from typing import Any

import click

from toto import command
from toto.errors import UsageError
from toto.plain import plain
from toto.shards.commands.output_file import OutputFile
from toto.shards.dataset import Dataset
from toto.shards.look.clips import Painter, Pick, choose
from toto.shards.look.originals import Originals, under
from toto.shards.look.pictures import has_pillow
from toto.shards.look.seen import seen_at, seen_json, seen_lines, steps_of, write_seen
from toto.shards.look.view import View, format_of, write_view
from toto.shards.stream import open_run


@click.command()
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
    type=OutputFile(),
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
    """Decode tokens back to pictures; a few rows when none are named. `seen` shows what a training step read.

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


@click.command()
@click.option("--run", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The training run's folder.")
@click.option("--step", type=click.IntRange(1), required=True, metavar="N", help="As metrics.jsonl counts; 1 is first.")
@click.option("--sequence", type=click.IntRange(0), metavar="I", help="Only this one of the step's batch; 0 is first.")
@click.option("--sources", "root", metavar="ROOT", help="The folder that the videos are in: shows its frames beside.")
@click.option("--out", type=OutputFile(), metavar="FILE", help="Pictures: .png, .gif, .mp4 or .html")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON: sources, frames, times, hashes.")
def seen(run: Path, step: int, sequence: int | None, root: str | None, out: Path | None, as_json: bool) -> None:
    """What a training step read: sources, frame numbers, times and pictures of its batch.

    \b
    Example: toto-shards seen --run runs/demo/model --step 200 --out step-200.html
    """
    if out is not None:
        format_of(out)
    found, last = seen_at(open_run(run), step, sequence), steps_of(run)
    for line in seen_lines(found):
        command.say(plain(line))
    if last is not None and step > last:
        command.say(f"the run ends at step {last:,}: this is what step {step:,} would read")
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
