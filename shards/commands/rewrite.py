"""Datasets made of datasets: `pack`, `split`, `merge`; and of tokens made elsewhere: `import`."""

import re
from typing import Any

import click

from toto import command
from toto.errors import UsageError
from toto.options import all_of, json_option
from toto.plain import counted
from toto.shards.commands.sizes import Bytes
from toto.shards.dataset import Dataset
from toto.shards.rewrite.derive import SHARD_BYTES, Options, Result
from toto.shards.rewrite.importing import import_tokens
from toto.shards.rewrite.merge import Union, merge
from toto.shards.rewrite.pack import pack
from toto.shards.rewrite.split import SOURCE, Division, parse_shares, split

makes_a_dataset = all_of(
    click.option("--out", required=True, metavar="URI", help="The new dataset: a folder, or an fsspec URI."),
    click.option(
        "--shard-bytes",
        type=Bytes(),
        default=SHARD_BYTES,
        metavar="SIZE",
        help="Ids and pixels of a shard before compression, about (no piece is cut); default 256MiB.",
    ),
    click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes; each makes shards."),
    json_option,
)
proof_option = click.option(
    "--proof/--no-proof", default=True, show_default=True, help="Read the input again at the end and compare all rows."
)


@click.command("pack")
@click.argument("uri")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of the pieces.")
@makes_a_dataset
@proof_option
def pack_command(
    uri: str, out: str, seed: int, shard_bytes: int, workers: int | None, proof: bool, as_json: bool
) -> None:
    """The same rows in even files, shuffled by pieces: for storage that is read from front to back.

    Run again, it goes on where it was stopped.

    \b
    Example: toto-shards pack data/demo/dct-512-64 --out data/demo/packed
    """
    _finish(pack(uri, out, shard_bytes, seed, _options(workers, proof)), out, as_json)


@click.command("split")
@click.argument("uri")
@click.option("--into", required=True, metavar="NAME=SHARE,…", help="Splits and shares that add up to 1.")
@click.option("--from", "of", metavar="NAME", help="Divide this split; the others stay as they are.")
@click.option("--pool", is_flag=True, help="Divide all splits together.")
@click.option(
    "--group",
    default=SOURCE,
    show_default=True,
    metavar="RULE",
    help="What stays together: source, folder, or a regular expression on source keys.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Another seed draws another division.")
@click.option("--allow-empty", is_flag=True, help="A split may get no source.")
@makes_a_dataset
@proof_option
def split_command(
    uri: str,
    out: str,
    into: str,
    of: str | None,
    pool: bool,
    group: str,
    seed: int,
    allow_empty: bool,
    shard_bytes: int,
    workers: int | None,
    proof: bool,
    as_json: bool,
) -> None:
    """Divide sources into splits by a keyed hash of their group.

    The same group goes to the same split in every dataset, and stays there when sources are added.

    \b
    Example: toto-shards split data/demo/dct-512-64 --from train --into train=0.9,dev=0.1 --out data/demo/divided
    """
    if of is not None and pool:
        raise UsageError("--from divides one split, --pool all of them: give one of the two")
    division = Division(parse_shares(into), seed, group, of, pool, allow_empty)
    _finish(split(uri, out, division, shard_bytes, _options(workers, proof)), out, as_json)


@click.command("merge")
@click.argument("uris", nargs=-1, required=True, metavar="URI...")
@click.option("--prefix", is_flag=True, help="Put each dataset's name and a / before its sources' keys.")
@click.option("--names", metavar="A,B,…", help="These names for --prefix, in the order of the datasets.")
@click.option("--skip-shared", is_flag=True, help="Of a source in several datasets take the first one's that has rows.")
@click.option("--classes-by-name", is_flag=True, help="Classes of one name are one; the others get new numbers.")
@click.option("--without", multiple=True, metavar="TABLE", help="Leave this annotation out; may be given again.")
@click.option("--name", metavar="NAME", help="Of the new dataset; default: theirs, joined by +.")
@makes_a_dataset
@proof_option
def merge_command(
    uris: tuple[str, ...],
    out: str,
    prefix: bool,
    names: str | None,
    skip_shared: bool,
    classes_by_name: bool,
    without: tuple[str, ...],
    name: str | None,
    shard_bytes: int,
    workers: int | None,
    proof: bool,
    as_json: bool,
) -> None:
    """Several datasets of one tokenizer and one way of sampling as one; splits are joined by name.

    \b
    Example: toto-shards merge data/a data/b --prefix --out data/both
    """
    prefixes: tuple[str, ...] = ()
    if prefix or names:
        told = names.split(",") if names else [str(Dataset(uri).info["name"]) for uri in uris]
        prefixes = tuple(f"{name.strip()}/" for name in told)
    union = Union(prefixes, skip_shared, classes_by_name, frozenset(without))
    _finish(merge(uris, out, union, name, shard_bytes, _options(workers, proof)), out, as_json)


@click.command("import")
@click.argument("folder")
@click.option("--tokenizer", required=True, metavar="SPEC", help="Its name, or a .json file with a `tokenizer` object.")
@click.option("--split", "split_name", default="train", show_default=True, metavar="NAME", help="Of all sources.")
@click.option("--kind", type=click.Choice(["video", "image"]), help="What one .npy file holds; default video.")
@click.option("--grid", metavar="HxW", help="Codes of a picture from top to bottom and from left to right.")
@click.option("--vocab-size", type=int, metavar="N", help="Codes are 0 … N - 1.")
@click.option("--patch", type=int, metavar="PIXELS", help="Side of the square that becomes one code.")
@click.option("--fps", type=float, metavar="F", help="Frames a second of the source.")
@click.option("--stride", type=int, metavar="S", help="Source frames from one stored frame to the next; default 1.")
@makes_a_dataset
def import_command(
    folder: str,
    tokenizer: str,
    split_name: str,
    grid: str | None,
    out: str,
    shard_bytes: int,
    workers: int | None,
    as_json: bool,
    **facts: Any,
) -> int:
    """Tokens that somebody else made: a folder of .npy files, or 1X's video.bin. Bad files are quarantined.

    FOLDER is one of this machine, or an fsspec URI such as s3://bucket/codes.

    Options go before what metadata.json in the folder says. Exit code 1 where no source gave a row.

    \b
    Example: toto-shards import codes/ --tokenizer vq-f16 --kind image --grid 16x16 --out data/imported
    """
    given = {key: value for key, value in facts.items() if value is not None}
    if grid is not None:
        sides = re.fullmatch(r"(\d{1,5})[x,](\d{1,5})", grid)
        if sides is None:
            raise UsageError(f"--grid {grid}: give rows and columns, such as 16x16")
        given["grid"] = [int(sides[1]), int(sides[2])]
    result = import_tokens(folder, out, tokenizer, split_name, given, shard_bytes, _options(workers))
    _finish(result, out, as_json)
    return 0 if result.snapshot.value["totals"]["rows"] else 1


def _options(workers: int | None, proof: bool = True) -> Options:
    return Options(workers, proof, command.say)


def _finish(result: Result, out: str, as_json: bool) -> None:
    value = result.value(out)
    command.say(
        f"{out}: {counted(value['rows'], 'row')}, {value['tokens']:,} ids in {counted(value['shards'], 'shard')} "
        f"({value['bytes'] / 1e6:,.2f} MB), {counted(value['quarantined'], 'source')} in quarantine"
    )
    if value["quarantine"]:
        command.say("  " + ", ".join(f"{reason} {count:,}" for reason, count in sorted(value["quarantine"].items())))
    if result.proof is not None:
        for split_name, rows in sorted(result.proof.rows.items()):
            command.say(
                f"  {split_name}: the same {counted(rows, 'row')} as before (row hashes add up to "
                f"{result.proof.row_hash[split_name]} on both sides)"
            )
    command.say(f"dataset id {value['dataset_id']}")
    if as_json:
        command.print_json(value)
