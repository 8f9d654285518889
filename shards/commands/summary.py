"""`toto-shards info | card`: what datasets hold, by what a seal wrote down; no shard is opened."""

import json
from pathlib import Path
from typing import Any

import click

from toto import command
from toto.errors import UserError
from toto.files import write_whole
from toto.shards.card import card_text, codes_section
from toto.shards.commands.output_file import OutputFile
from toto.shards.dataset import Dataset
from toto.shards.manifest import final_results
from toto.shards.statistics.reading import shard_table
from toto.shards.summary import info_text, summary, table2, table_text, total

as_json_option = click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")


@click.command()
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@as_json_option
def info(uris: tuple[str, ...], as_json: bool) -> None:
    """What a dataset holds; of several, a table with the columns of the paper's Table 2 and their total.

    \b
    Example: toto-shards info data/demo/dct-512-64
             toto-shards info data/k600/dvae-128 data/howto100m/dvae-128
    """
    if len(uris) == 1:
        value = summary(Dataset(uris[0]).info)
        command.say(info_text(uris[0], value))
    else:
        lines = [table2(uri, Dataset(uri)) for uri in uris]
        value = {"datasets": lines, "total": total(lines)}
        command.say(table_text(lines, value["total"]))
    if as_json:
        command.print_json(value)


@click.command()
@click.argument("uri")
@click.option("--stats", "stats_file", type=click.Path(path_type=Path, exists=True), metavar="FILE",
              help="What `toto-shards stats --json` printed: adds its figures.")  # fmt: skip
@click.option("--hub", is_flag=True, help="Front matter that lists the shards of each split for the Hugging Face Hub.")
@click.option("--out", type=OutputFile(), metavar="FILE", help="Default: stdout.")
@as_json_option
def card(uri: str, stats_file: Path | None, hub: bool, out: Path | None, as_json: bool) -> None:
    """The dataset card again, as a seal writes it; with figures of `stats`, or for the Hub.

    \b
    Example: toto-shards card data/demo/dct-512-64 --hub --out README.md
    """
    dataset = Dataset(uri)
    measured = None if stats_file is None else _read_stats(stats_file, dataset.dataset_id)
    text = card_text(dataset.info, final_results([dataset.sources()]), measured, _files(dataset) if hub else None)
    if out is None:
        command.say(text)
    else:
        write_whole(out, text.encode())
        click.echo(out)
    if as_json:
        command.print_json({"dataset_id": dataset.dataset_id, "out": None if out is None else str(out), "card": text})


def _read_stats(path: Path, dataset_id: str) -> dict[str, Any]:
    """The last line of a file, as `--json` ends stdout."""
    try:
        value = json.loads(path.read_text().strip().splitlines()[-1])
        made_of = value["dataset_id"]
        codes_section(value)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{path}: not what `toto-shards stats URI --json` prints; make it anew by that") from None
    if made_of != dataset_id:
        raise UserError(f"{path}: of dataset {made_of}, not of {dataset_id}; run `toto-shards stats` again")
    return dict(value)


def _files(dataset: Dataset) -> dict[str, list[str]]:
    """Split -> its shards."""
    return {split: shard_table(dataset, split)["path"].to_pylist() for split in dataset.splits}
