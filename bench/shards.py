"""Token shards against the loaders people use today: the same tokens, written by each peer's own writer.

    python bench/shards.py [--only PART …] [--media FOLDER] [--data FOLDER] [--repeats 5] [--markdown] [--json]

Parts: sequential, shuffled, sizes, first-batch, proofs. Ours and each peer take turns in one run; what one process does
is taken by the clock and by CPU time. Peers are installed by hand: pip install webdataset datasets, pip install
--no-deps litdata. What they measured: docs/benchmarks.md.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OTHERS = [str(HERE / "streaming"), str(HERE / "tokenizing")]  # sides and machine are those of bench/tokenize.py
sys.path[:] = OTHERS + [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from contextlib import nullcontext  # noqa: E402

import click  # noqa: E402

PARTS = ("sequential", "shuffled", "sizes", "first-batch", "proofs")


@click.command()
@click.option("--only", "chosen", multiple=True, type=click.Choice(PARTS), help="Default: all.")
@click.option(
    "--media", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Videos; else made-up ones."
)
@click.option("--data", type=click.Path(path_type=Path), help="Keeps the tokens here for the next run.")
@click.option("--frames", type=click.IntRange(2048), default=131_072, show_default=True, help="Frames of tokens.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--markdown", is_flag=True, help="Print the table of docs/benchmarks.md too.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(
    chosen: tuple[str, ...],
    media: Path | None,
    data: Path | None,
    frames: int,
    repeats: int,
    markdown: bool,
    as_json: bool,
) -> None:
    """Prints every repetition, medians and ratios."""
    with nullcontext(data) if data else tempfile.TemporaryDirectory() as folder:
        # One cache for all parts, of this run alone: nothing of it stays in the user's own.
        os.environ |= {"TOTO_CACHE": f"{folder}/cache", "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        lines = _measure(chosen or PARTS, Path(folder), frames, media, repeats)
    if markdown:
        click.echo("| what | ours | peer | unit | ratio of medians | wanted |\n|---|---:|---:|---|---:|---:|")
        for line in lines:
            bar = "–" if line["bar"] is None else f"{line['bar']:g}"
            numbers = " | ".join(_short(line[side]) for side in ("ours", "peer"))
            click.echo(f"| {line['what']} | {numbers} | {line['unit']} | {_times(line['ratio'])} | {bar} |")
    if as_json:
        click.echo(json.dumps(lines))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 1_000 else f"{number:.4g}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio >= 0.1 else f"{ratio:.2g}×"


def _measure(chosen: tuple[str, ...], folder: Path, frames: int, media: Path | None, repeats: int) -> list[dict]:
    import first_batch
    import machine
    import proofs
    import sequential
    import shuffled
    import sizes
    import world

    click.echo(machine.words() + "\n")
    videos = world.prepare(folder, frames, media)
    parts = {"sequential": sequential, "shuffled": shuffled, "sizes": sizes, "proofs": proofs}
    lines = []
    for name in chosen:
        if name == "first-batch":
            lines += first_batch.measure(world.prepare_images(folder, videos, first_batch.IMAGES), repeats)
        else:
            lines += parts[name].measure(videos, repeats)
    return lines


if __name__ == "__main__":
    main()
