"""What zstd levels, batch sizes and other encodings of the same tokens cost and save.

    python bench/shard_compression.py [--media FOLDER] [--data FOLDER] [--frames N] [--markdown] [--json]

For each level and batch: bytes a token, how fast a batch is written and inflated, and what a window read at random from
a compressed batch costs. Then what other encodings would take: 13-bit packing; a bitmap of the codes that repeat the
frame before, with 13 bits for each other one. Encodings are measured, not implemented: docs/benchmarks.md has a table.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OTHERS = [str(HERE / "streaming"), str(HERE / "tokenizing")]
sys.path[:] = OTHERS + [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402
import tempfile  # noqa: E402
from contextlib import nullcontext  # noqa: E402

import click  # noqa: E402
import encodings_of_ids  # noqa: E402
import levels  # noqa: E402
import machine  # noqa: E402
import world  # noqa: E402


@click.command()
@click.option(
    "--media", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Videos; else made-up ones."
)
@click.option("--data", type=click.Path(path_type=Path), help="Keeps the tokens here for the next run.")
@click.option("--frames", type=click.IntRange(2048), default=131_072, show_default=True, help="Frames of tokens.")
@click.option("--markdown", is_flag=True, help="Print the tables of docs/benchmarks.md too.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(media: Path | None, data: Path | None, frames: int, markdown: bool, as_json: bool) -> None:
    """Prints a line for each level and batch size, and one for each encoding."""
    click.echo(machine.words() + "\n")
    with nullcontext(data) if data else tempfile.TemporaryDirectory() as folder:
        root = world.prepare(Path(folder), frames, media)
        found = levels.measure(root)
        click.echo("")
        lines = encodings_of_ids.measure(root, levels.usual(found))
    if markdown:
        click.echo(levels.markdown(found))
    if as_json:
        click.echo(json.dumps([line.as_json(levels.usual(found)) for line in found] + lines))


if __name__ == "__main__":
    main()
