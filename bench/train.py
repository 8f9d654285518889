"""Training against the ways people do it today: steps of the same shape in turns; and what is not a step.

    python bench/train.py [--only PART …] [--size base …] [--context 1024 …] [--precision fp32 …] [--repeats 3] [--json]

Parts: steps (tokens/s, peak memory, MFU, against transformers and litgpt), loading, whole-run. Peers are installed by
hand: `make setup` has transformers; litgpt as bench/training/side_litgpt.py says. What they measured:
docs/benchmarks.md.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OTHERS = [str(HERE / folder) for folder in ("training", "streaming", "tokenizing")]  # sides, machine, world
sys.path[:] = OTHERS + [p for p in sys.path if Path(p or ".").resolve() != HERE]  # which would hide Python's tokenize

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from contextlib import nullcontext  # noqa: E402

import click  # noqa: E402

PARTS = ("steps", "loading", "whole-run")
PEERS = ("transformers", "litgpt")


@click.command()
@click.option("--only", "chosen", multiple=True, type=click.Choice(PARTS), help="Default: all.")
@click.option("--size", "sizes", multiple=True, help="Default: base; on a GPU base, large and 1b.")
@click.option("--context", "contexts", multiple=True, type=click.IntRange(2), help="Default: 1024 and 4096.")
@click.option("--precision", "precisions", multiple=True, type=click.Choice(("fp32", "bf16")), help="Default: bf16 "
              "where the machine has instructions for it.")  # fmt: skip
@click.option("--peer", "peers", multiple=True, type=click.Choice(PEERS), help="Default: all.")
@click.option("--tokens", type=click.IntRange(2), default=4096, show_default=True, help="Of a step.")
@click.option("--data", type=click.Path(path_type=Path), help="Keeps the made-up tokens here for the next run.")
@click.option("--frames", type=click.IntRange(256), default=32_768, show_default=True, help="Frames of tokens.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.1), help="For steps: fewer repetitions where so many minutes "
              "are not enough; then the round that warms up may be the only one.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(
    chosen: tuple[str, ...],
    sizes: tuple[str, ...],
    contexts: tuple[int, ...],
    precisions: tuple[str, ...],
    peers: tuple[str, ...],
    tokens: int,
    data: Path | None,
    frames: int,
    repeats: int,
    minutes: float | None,
    as_json: bool,
) -> None:
    """Prints every repetition, medians and ratios."""
    import machine
    import steps

    click.echo(machine.words() + "\n")
    lines = []
    for part in chosen or PARTS:
        if part == "steps":
            shapes = steps.shapes_of(sizes, contexts, precisions, tokens)
            lines += steps.measure(shapes, peers or PEERS, repeats, 60 * (minutes or float("inf")))
            continue
        with nullcontext(data) if data else tempfile.TemporaryDirectory() as folder:
            os.environ["TOTO_CACHE"] = f"{folder}/cache"
            lines += _with_tokens(part, Path(folder), frames, sizes, repeats)
    if as_json:
        click.echo(json.dumps(lines))


def _with_tokens(part: str, folder: Path, frames: int, sizes: tuple[str, ...], repeats: int) -> list[dict]:
    import loading
    import whole_run
    import world

    root = world.prepare(folder, frames, None)
    if part == "loading":
        return loading.measure(root, repeats)
    return whole_run.measure(root, sizes or ("base", "tiny"))


if __name__ == "__main__":
    main()
