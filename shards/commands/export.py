"""`toto-shards export`: windows or rows as other libraries read them."""

import sys
import time

import click

from toto import command
from toto.errors import UsageError
from toto.plain import counted
from toto.shards.commands.sizes import Bytes
from toto.shards.export.pieces import Cut
from toto.shards.export.run import MOST_SHARD_BYTES, TARGETS, Export
from toto.shards.export.run import export as export_dataset

DEFAULT_FRAMES = 16
SHOWN_EVERY_S = 0.2


@click.command()
@click.argument("uri")
@click.option("--to", "target", type=click.Choice(tuple(TARGETS)), required=True, help="Which library shall read it.")
@click.option("--out", required=True, metavar="URI", help="A new or empty folder, or fsspec URI (s3://…).")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="Only this split (may be given again).")
@click.option("--frames", type=click.IntRange(1, 65_535), metavar="T", help="Windows of T frames; default 16.")
@click.option("--stride", type=click.IntRange(1, 65_535), metavar="S", help="Stored frames to the next; default 1.")
@click.option("--hop", type=click.IntRange(1, 65_535), metavar="H", help="Frames to the next window; default T.")
@click.option("--rows", is_flag=True, help="Whole rows instead of windows; images too.")
@click.option("--codes", is_flag=True, help="Codes [T, height, width] instead of ids with start and end.")
@click.option("--order", default="stored", show_default=True, metavar="stored|SEED", help="SEED shuffles.")
@click.option("--shard-bytes", type=Bytes(MOST_SHARD_BYTES), metavar="SIZE", help="Of one file, about: 100MB.")
@click.option("--force", is_flag=True, help="Replace an earlier export there.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON: pieces, files, bytes.")
def export(
    uri: str,
    target: str,
    out: str,
    splits: tuple[str, ...],
    frames: int | None,
    stride: int | None,
    hop: int | None,
    rows: bool,
    codes: bool,
    order: str,
    shard_bytes: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Windows or rows for WebDataset, Hugging Face datasets, LitData, NumPy or nanoGPT.

    \b
    Example: toto-shards export data/demo/dct-512-64 --to webdataset --frames 8 --out data/exports/demo-tars
    """
    if rows and (frames or stride or hop):
        raise UsageError("--rows takes whole rows: leave --frames, --stride and --hop out")
    cut = None if rows else Cut(frames or DEFAULT_FRAMES, stride or 1, hop)
    what = Export(target, cut, codes, _seed(order), shard_bytes, splits)
    result = export_dataset(uri, what, out, force, _Progress() if sys.stderr.isatty() else lambda done, total: None)
    pieces = ", ".join(f"{count:,} of {split}" for split, count in result["pieces"].items())
    files = counted(result["files"], "file")
    command.say(f"{out}: {'rows' if rows else 'windows'}: {pieces}; {files}, {result['bytes']:,} bytes")
    if result["images_left_out"]:
        command.say(f"left out, for want of windows: {counted(result['images_left_out'], 'image')}; --rows takes them")
    if as_json:
        command.print_json(result)


def _seed(order: str) -> int | None:
    if order == "stored":
        return None
    if not order.isdecimal():
        raise UsageError(f"--order {order}: `stored`, or a whole number to shuffle by")
    return int(order)


class _Progress:
    def __init__(self) -> None:
        self._next_s = 0.0

    def __call__(self, done: int, total: int) -> None:
        if done == total or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + SHOWN_EVERY_S
            click.echo(f"\r\x1b[Kexport {done:,}/{total:,}" + ("\n" if done == total else ""), nl=False, err=True)
