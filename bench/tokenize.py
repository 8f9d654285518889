"""The tokenize stage against the ways people do it today, each pair taken in turns in one run.

    python bench/tokenize.py [--only PART …] [--repeats 5] [--json]

Parts: clips (decoding), dct-job (a whole job), nearest (codebook look-up), encoders (dVAE, VQGAN, SD-VAE on every
core), gpu (dVAE and VQGAN there), dvae-job (five minutes and more). Peers are installed by hand: pip install decord.
What they measured, and on which machine: docs/benchmarks.md.
"""

import sys
from pathlib import Path

# A script's own folder comes first on the path: `import tokenize` would find this file, and torch needs Python's.
HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE / "tokenizing"), *(p for p in sys.path if Path(p or ".").resolve() != HERE)]

import json  # noqa: E402

import click  # noqa: E402
import clips  # noqa: E402
import encoders  # noqa: E402
import gpu  # noqa: E402
import jobs  # noqa: E402
import machine  # noqa: E402
import nearest  # noqa: E402

PARTS = {
    "clips": clips.measure,
    "dct-job": jobs.measure_dct,
    "nearest": nearest.measure,
    "encoders": encoders.measure,
    "gpu": gpu.measure,
    "dvae-job": jobs.measure_dvae,
}


@click.command()
@click.option("--only", "chosen", multiple=True, type=click.Choice(tuple(PARTS)), help="Default: all.")
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def main(chosen: tuple[str, ...], repeats: int, as_json: bool) -> None:
    """Prints every repetition, medians and ratios."""
    click.echo(machine.words() + "\n")
    lines = [line for name in chosen or PARTS for line in PARTS[name](repeats)]
    if as_json:
        click.echo(json.dumps(lines))


if __name__ == "__main__":
    main()
